"""Which store an address is of: Google's or Amazon's."""

import functools
import importlib.util

from transformer.errors import UserError
from transformer.storage.store import Store


@functools.cache
def open_store(scheme: str) -> Store:
    """The store of a scheme, gs or s3, with this machine's credentials.

    Raises:
        UserError: what reads it is not installed.
    """
    module, extra = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}[scheme]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{scheme}:// needs the package {module}: pip install -e '.[{extra}]'")
    if scheme == "gs":
        from transformer.storage.gcs import GoogleCloudStorage

        return Store(GoogleCloudStorage())
    from transformer.storage.s3 import S3

    return Store(S3())
