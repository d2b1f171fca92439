"""Which text is the address of an object in a bucket, and which a path on a disk."""

import os
import re
from dataclasses import dataclass

from transformer.errors import UserError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3|az|abfs|hf|hdfs|https?|file):/")
SCHEMES = ("gs", "s3")
# What every store, shell and library between here and there reads as it is meant.
PLAIN = re.compile(r"[A-Za-z0-9_.=+@,~-]+")


@dataclass(frozen=True)
class Address:
    """An object, or what the names of several begin with: `gs://bucket/runs/base`."""

    scheme: str  # "gs" or "s3"
    bucket: str
    key: str  # without a slash at either end; "": the bucket itself

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __truediv__(self, name: str) -> "Address":
        return Address(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a text names something that is not on a disk."""
    return bool(SCHEME.match(os.fspath(path)))


def parse(text: str) -> Address:
    """The address that a text is.

    Raises:
        UserError: of a store that we cannot use, or with a name that some library would misread.
    """
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    if scheme not in SCHEMES or not rest.startswith("//"):
        raise UserError(
            f"{text} is no folder or file of a disk, and of no store that is supported: give a "
            "path, gs://BUCKET/NAME or s3://BUCKET/NAME"
        )
    bucket, _, key = rest[2:].partition("/")
    key = key.rstrip("/")
    if not bucket:
        raise UserError(f"{text} names no bucket: give {scheme}://BUCKET/NAME")
    for name in (bucket, *(key.split("/") if key else [])):
        if not PLAIN.fullmatch(name) or set(name) == {"."}:
            raise UserError(
                f"{text}: {name!r} cannot be part of a name in a bucket here: use letters, digits "
                "and =+@,~-_. alone"
            )
    return Address(scheme, bucket, key)
