"""How attention is computed: one call, `attend`, over an ordered table of backends.

Scaled dot-product attention is a soft dictionary lookup: a query is compared with every key, the
softmax of the scores says how much of each value to take (AIAYN §3.2.1, Eq. 1). `reference` is the
specification; every other backend is tested as "equals reference".
"""

from transformer.attention.api import attend
from transformer.attention.backends import BACKENDS, Backend, served, unknown_backend
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout, attention_weights, masked_softmax
from transformer.attention.sharded import Split
from transformer.attention.verify import Cell, Sizes, verify

__all__ = [
    "BACKENDS",
    "Backend",
    "Cell",
    "Dropout",
    "Mask",
    "Sizes",
    "Split",
    "attend",
    "attention_weights",
    "masked_softmax",
    "served",
    "unknown_backend",
    "verify",
]
