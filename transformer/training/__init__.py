"""Training: the step, the loop around it, and what a run leaves behind."""

from transformer.training.callbacks import Callback
from transformer.training.loop import train

__all__ = ["Callback", "train"]
