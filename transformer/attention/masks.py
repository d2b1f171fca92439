"""Which keys a query may attend to, said in data: positions and segments, never a dense matrix.

A query sees a key where their segments are equal and not 0 (0 is padding), where the key's position
is not after its own (`causal`), and where it is less than `window` positions away (`window`).
`dense` spells this out as a boolean matrix, of a block at a time if need be.
"""

from typing import Self

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from transformer.batch import AnyArray


@struct.dataclass
class Mask:
    """A mask as data. Its halves are cut and sent about with the queries and keys they belong to.

    Positions count within a segment; causal and window compare them, so they must come from the
    same sequence (self-attention). Cross-attention has neither.

    The indices are there where queries and keys are one sequence in row order: they number its
    positions over the whole row. Two positions of one segment are as far apart by index as by
    position, so a kernel that knows nothing of positions may decide by index.
    """

    q_segments: Int[AnyArray, "B T"]
    k_segments: Int[AnyArray, "B S"]
    q_positions: Int[AnyArray, "B T"]
    k_positions: Int[AnyArray, "B S"]
    causal: bool = struct.field(pytree_node=False, default=False)
    window: int | None = struct.field(pytree_node=False, default=None)
    q_index: Int[AnyArray, "T"] | None = None
    k_index: Int[AnyArray, "S"] | None = None

    @classmethod
    def self_attention(
        cls,
        segments: Int[AnyArray, "B T"],
        positions: Int[AnyArray, "B T"],
        *,
        causal: bool = False,
        window: int | None = None,
    ) -> Self:
        """Self-attention: a sequence looks at itself.

        Each segment is one stretch of the row, in which positions rise by 1; `splash` relies on it
        where attention is causal or has a window. Segments are not negative.
        """
        index = jnp.arange(segments.shape[1], dtype=jnp.int32)
        return cls(segments, segments, positions, positions, causal, window, index, index)

    @property
    def by_distance(self) -> bool:
        """Whether it depends on how far apart two positions are, not on segments alone."""
        return self.causal or self.window is not None

    def dense(self) -> Bool[Array, "B T S"]:
        """True where query t may attend to key s."""
        q_seg_BT1, k_seg_B1S = self.q_segments[:, :, None], self.k_segments[:, None, :]
        allowed_BTS = (q_seg_BT1 == k_seg_B1S) & (k_seg_B1S != 0)
        distance_BTS = self.q_positions[:, :, None] - self.k_positions[:, None, :]
        return allowed_BTS & near(distance_BTS, self.causal, self.window)


def near(distance: Int[AnyArray, "..."], causal: bool, window: int | None) -> Bool[Array, "..."]:
    """Whether a key `distance` positions back may be seen."""
    allowed = jnp.ones_like(distance, dtype=bool)
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= jnp.abs(distance) < window
    return allowed
