"""Weights from other systems: `marian`, Hugging Face's MarianMTModel, and its text's `Pieces`.

Neither torch nor transformers is imported: what they write is read as files.
"""

from transformer.interop import marian
from transformer.interop.marian_pieces import Pieces

__all__ = ["Pieces", "marian"]
