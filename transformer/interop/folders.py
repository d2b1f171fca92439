"""A folder as Hugging Face's `save_pretrained` writes it: JSON and safetensors."""

from pathlib import Path
from typing import Any

import numpy as np

from transformer import files
from transformer.errors import UserError

WEIGHTS = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        UserError: there is no such file, or no object in it.
    """
    try:
        return files.read_json(path)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; give a folder that save_pretrained wrote"
        ) from error
    except files.Damaged as error:
        raise UserError(f"{path} {str(error).removeprefix('it ')}; fetch it again") from error


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder by its name, in the dtype that it is stored in.

    Raises:
        UserError: there is no model.safetensors, it is damaged, or its reader is not installed.
    """
    try:
        import safetensors
        from safetensors.numpy import load_file
    except ImportError as error:
        raise UserError(
            f"{folder / WEIGHTS} needs safetensors to be read: pip install 'transformer[interop]'"
        ) from error
    path = folder / WEIGHTS
    if not path.exists():
        raise UserError(
            f"{path}: no such file; where the weights are in another form or in several files, "
            "load them with transformers and write them with save_pretrained(folder)"
        )
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:  # pyright: ignore
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error
