"""How attention is computed: one call, `attend`, over an ordered table of backends.

Scaled dot-product attention is a soft dictionary lookup: a query is compared with every key, the
softmax of the scores says how much of each value to take (AIAYN §3.2.1, Eq. 1). `reference` is the
specification; every other backend is tested as "equals reference".
"""

from transformer.attention.api import BACKENDS, Backend, Dropout, attend, attention_weights, select
from transformer.attention.masks import Mask

__all__ = ["BACKENDS", "Backend", "Dropout", "Mask", "attend", "attention_weights", "select"]
