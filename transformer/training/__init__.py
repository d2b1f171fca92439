"""From a configuration to a trained model: the step, the loop around it, what it leaves behind."""

from transformer.training.loop import train

__all__ = ["train"]
