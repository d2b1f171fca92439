"""A cache for models that are made up: of the source, and what each hypothesis has written."""

from typing import Any, Self

from flax import struct

from transformer.models.seq2seq import Cache, pick_parents


@struct.dataclass
class PrefixCache(Cache):
    source: Any
    prefix: Any  # int32 [B, W, L]

    def reorder(self, parents_BW: Any) -> Self:
        return self.replace(prefix=pick_parents(self.prefix, parents_BW, axis=1))  # pyright: ignore
