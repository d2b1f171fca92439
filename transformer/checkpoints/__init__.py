"""A run's checkpoints: which there are, whether they are whole, how they are written and read."""

from transformer.checkpoints.averaging import load_params
from transformer.checkpoints.checkpoints import Checkpoints, Meta, Unusable, open_checkpoints
from transformer.checkpoints.state import LossBaseline, TrainState

__all__ = [
    "Checkpoints",
    "LossBaseline",
    "Meta",
    "TrainState",
    "Unusable",
    "load_params",
    "open_checkpoints",
]
