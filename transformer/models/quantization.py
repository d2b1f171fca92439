"""Weights as 8-bit whole numbers, for decoding: a quarter of the bytes, and products of integers.

A matrix has one scale for each output channel, the largest magnitude of its weights over 127; an
activation has one for each row, found as it comes, so that nothing is calibrated beforehand
(Dettmers et al. 2022, §2.1, "vector-wise"). Products of the two are summed exactly, in int32.
Norms, biases, positions, attention's own products and the softmax stay as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

MOST = 127
# The matrices, by name, and the axes that a product sums over; layers may be stacked before them.
SUMMED = {
    **dict.fromkeys(("query", "key", "value"), (-3,)),  # [D, H, K]
    "output": (-3, -2),  # [H, U, D]
    **dict.fromkeys(("up", "gate", "down"), (-2,)),  # [D, F], [F, D]
    **dict.fromkeys(("table", "source_table", "output_table"), (-1,)),  # [V, D]
}


@struct.dataclass
class Int8:
    """A matrix: values times scale. It stands where a float32 array of its shape stood."""

    values: Any  # int8
    scale: Any  # float32; of the same rank, 1 along the axes that a product sums over

    def __truediv__(self, divisor: float) -> "Int8":
        return Int8(self.values, self.scale / divisor)

    def rows(self, ids: Int[Array, "B T"], dtype: Any) -> Float[Array, "B T D"]:
        """A table's rows as numbers of a dtype."""
        values_BTD, scale_BT1 = (jnp.take(x, ids, axis=0) for x in (self.values, self.scale))
        return (values_BTD.astype(jnp.float32) * scale_BT1).astype(dtype)


def rounded(x: Float[Array, "..."], axes: tuple[int, ...]) -> Int8:
    """An array as int8, with a scale for all that lies along `axes`."""
    x32 = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x32), axis=axes, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0) / MOST
    return Int8(jnp.round(x32 / scale).astype(jnp.int8), scale)


def quantized(params: Any) -> Any:
    """Parameters of a Transformer (any of the three families), its matrices as `Int8`."""

    def one(path: Any, leaf: Array) -> Any:
        axes = SUMMED.get(path[-1].key)
        return leaf if axes is None else rounded(leaf, axes)

    return jax.tree_util.tree_map_with_path(one, params)
