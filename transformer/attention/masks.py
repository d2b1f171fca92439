"""Which keys a query may attend to, said in data: positions and segments, never a dense matrix.

A query sees a key where their segments are equal and not 0 (0 is padding), where the key's position
is not after its own (`causal`), and where it is less than `window` positions away (`window`).
`dense` spells this out as a boolean matrix for those backends that need one.
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from transformer.batch import AnyArray


@struct.dataclass
class Mask:
    """A mask as data. It travels with the keys and is split as they are.

    Positions count within a segment; causal and window compare them, so they must come from the
    same sequence (self-attention). Cross-attention has neither.
    """

    q_segments: Int[AnyArray, "B T"]
    k_segments: Int[AnyArray, "B S"]
    q_positions: Int[AnyArray, "B T"]
    k_positions: Int[AnyArray, "B S"]
    causal: bool = struct.field(pytree_node=False, default=False)
    window: int | None = struct.field(pytree_node=False, default=None)

    def dense(self) -> Bool[Array, "B T S"]:
        """True where query t may attend to key s."""
        q_seg_BT1, k_seg_B1S = self.q_segments[:, :, None], self.k_segments[:, None, :]
        allowed_BTS = (q_seg_BT1 == k_seg_B1S) & (k_seg_B1S != 0)
        if self.causal or self.window is not None:
            distance_BTS = self.q_positions[:, :, None] - self.k_positions[:, None, :]
            if self.causal:
                allowed_BTS &= distance_BTS >= 0
            if self.window is not None:
                allowed_BTS &= jnp.abs(distance_BTS) < self.window
        return allowed_BTS
