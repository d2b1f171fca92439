"""From a configuration to a trained model: the step, the loop around it, what it leaves behind.

Names are imported when they are first asked for: who reads a checkpoint waits for no optimizer.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer.training.loop import train
    from transformer.training.trained import trained_parameters

__all__ = ["train", "trained_parameters"]

_EXPORTS = {
    "train": "transformer.training.loop",
    "trained_parameters": "transformer.training.trained",
}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'transformer.training' has no attribute {name!r}")
