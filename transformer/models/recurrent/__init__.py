"""What the Transformer replaced: recurrent families, without attention and with it (family.py)."""

from transformer.models.recurrent.family import Recurrent

__all__ = ["Recurrent"]
