"""Attention masks, said in data: positions and segments, never a dense matrix.

A padding mask, a causal mask, a window, and sentences packed into one row are one thing here: a
query sees a key where their segments are equal and not 0 (0 is padding), where the key's position
is not after its own (`causal`), and where it is less than `window` positions away (`window`).
`dense` spells this out as a boolean matrix, of a block at a time if need be.
"""

from typing import Self

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from transformer.batch import AnyArray
from transformer.errors import UserError


@struct.dataclass
class Mask:
    """An attention mask as data. Its halves travel with the queries and keys they belong to.

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
    is_causal: bool = struct.field(pytree_node=False, default=False)
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

    @classmethod
    def full(cls) -> Self:
        """Every query sees every key."""
        one, zero = jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)
        return cls(one, one, zero, zero)

    @classmethod
    def causal(cls, length: int, window: int | None = None) -> Self:
        """Self-attention over so many positions, each of which sees itself and those before it."""
        index = jnp.arange(length, dtype=jnp.int32)[None]
        return cls.self_attention(jnp.ones_like(index), index, causal=True, window=window)

    @classmethod
    def padding(cls, lengths: Int[AnyArray, "B"], length: int | None = None) -> Self:
        """Every query sees the first `lengths[b]` keys of its row; the rest are padding.

        `length` is S, the number of keys; None: the longest of `lengths`, which must be known then.
        """
        lengths = jnp.asarray(lengths)
        S = int(lengths.max()) if length is None else length
        places_1S = jnp.arange(S, dtype=jnp.int32)[None]
        segments_BS = (places_1S < lengths[:, None]).astype(jnp.int32)
        ones_B1 = jnp.ones((lengths.shape[0], 1), jnp.int32)
        places_BS = jnp.broadcast_to(places_1S, segments_BS.shape)
        return cls(ones_B1, segments_BS, jnp.zeros_like(ones_B1), places_BS)

    def broadcast_to(self, B: int, T: int, S: int) -> Self:
        """Stretches axes of size 1 to B rows, T queries and S keys.

        Raises:
            UserError: the mask is of other sizes.
        """

        def stretch(name: str, length: int) -> AnyArray:
            array = getattr(self, name)
            if array.shape == (B, length):
                return array
            if array.shape[0] not in (1, B) or array.shape[1] not in (1, length):
                raise UserError(
                    f"the mask's {name} are {array.shape}, for {B} rows of {length} "
                    f"{'queries' if name[0] == 'q' else 'keys'}"
                )
            return jnp.broadcast_to(array, (B, length))

        return self.replace(  # pyright: ignore[reportAttributeAccessIssue]
            q_segments=stretch("q_segments", T),
            k_segments=stretch("k_segments", S),
            q_positions=stretch("q_positions", T),
            k_positions=stretch("k_positions", S),
        )

    @property
    def by_distance(self) -> bool:
        """Whether it depends on how far apart two positions are, not on segments alone."""
        return self.is_causal or self.window is not None

    def dense(self) -> Bool[Array, "B T S"]:
        """True where query t may attend to key s."""
        q_seg_BT1, k_seg_B1S = self.q_segments[:, :, None], self.k_segments[:, None, :]
        allowed_BTS = (q_seg_BT1 == k_seg_B1S) & (k_seg_B1S != 0)
        distance_BTS = self.q_positions[:, :, None] - self.k_positions[:, None, :]
        return allowed_BTS & near(distance_BTS, self.is_causal, self.window)


def near(distance: Int[AnyArray, "..."], causal: bool, window: int | None) -> Bool[Array, "..."]:
    """Whether a key `distance` positions back may be seen."""
    allowed = jnp.ones_like(distance, dtype=bool)
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= jnp.abs(distance) < window
    return allowed
