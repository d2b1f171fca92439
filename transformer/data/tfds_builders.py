"""TFDS builders by name: found, prepared as array_record, without TensorFlow."""

import importlib
import logging
import pkgutil
from pathlib import Path
from typing import Any

from transformer.errors import UserError

log = logging.getLogger(__name__)

DOWNLOAD_RETRIES = 4  # TFDS's own 10 keep an offline user waiting for 204 s; these take 3 s


def find(name: str, data_dir: str) -> Any:
    """The builder of `name` ("builder" or "builder/config"), whether prepared or not.

    Raises:
        UserError: there is none of that name, or its data are not in array_record.
    """
    import tensorflow_datasets as tfds

    options = {"file_format": "array_record", "data_dir": data_dir or None}
    try:
        try:
            return tfds.builder(name, **options)
        except tfds.core.DatasetNotFoundError:
            _register_translation_builders()
            return tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"data.tfds.name={name}: TFDS has no such data set, and none of that name is "
            f"prepared in data.tfds.data_dir={data_dir or '(the default)'}"
        ) from error
    except ValueError as error:  # an unknown configuration, or data in another file format
        raise UserError(f"data.tfds.name={name}: {first_line(error)}") from error


def prepare(builder: Any) -> None:
    """Downloads and prepares a builder's data if they are not there yet.

    Raises:
        UserError: that failed; the message says how to do it on another machine.
    """
    if builder.is_prepared():
        return
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = DOWNLOAD_RETRIES
    try:
        builder.download_and_prepare()
    except Exception as error:  # a foreign download can fail in any way; the way out is the same
        name = builder.info.full_name.removesuffix(f"/{builder.version}")
        call = f"tfds.builder('{name}', file_format='array_record', data_dir='prepared')"
        raise UserError(
            f"TFDS's {name} is not in {builder.data_dir_root} and could not be prepared "
            f'({first_line(error)}). On a machine with network, run: python -c "import '
            f"tensorflow_datasets as tfds, {type(builder).__module__}; "
            f'{call}.download_and_prepare()"; then copy the folder prepared/{builder.name} to '
            f"{Path(builder.data_dir_root) / builder.name} here"
        ) from error


def first_line(error: Exception) -> str:
    """An exception's text for the middle of a sentence; TFDS's fill pages."""
    return (str(error).strip() or type(error).__name__).split("\n")[0].strip()


def _register_translation_builders() -> None:
    """TFDS finds a translation builder by name only once its module has been imported."""
    import tensorflow_datasets.translate as package

    for module in pkgutil.iter_modules(package.__path__):
        try:
            importlib.import_module(f"{package.__name__}.{module.name}")
        except ImportError as error:  # one that needs more than TFDS installs; it stays unknown
            log.debug("TFDS's %s is not available: %s", module.name, error)
