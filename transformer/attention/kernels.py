"""What a block kernel is: attention of some queries over some keys, and how parts are put together.

Softmax over all keys can be had from parts: each part gives its own softmax's output `o` and the
log of its normaliser, `lse`; the parts' outputs are then weighted by exp(lse) (Milakov and
Gimelshein 2018; Dao et al. 2022). The backward pass needs nothing but the whole's `lse` and output,
so it too goes part by part. This is what FlashAttention and ring attention have in common: one
device visits parts in turn; a ring of devices sends them round.
"""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention.masks import Mask

# A bias's gradient: its floating-point leaves, in the order of `jax.tree.leaves`.
Leaves = list[Array]


@runtime_checkable
class Kernel(Protocol):
    """Attention in blocks. A query that sees no key has o = 0 and lse = -inf."""

    def forward(
        self,
        q: Float[Array, "B T H K"],
        k: Float[Array, "B S G K"],
        v: Float[Array, "B S G U"],
        mask: Mask,
        bias: Any,
        dropout: Any,
    ) -> tuple[Float[Array, "B T H U"], Float[Array, "B H T"]]:
        """These queries over these keys alone: (o, lse); lse is float32."""
        ...

    def backward(
        self,
        q: Float[Array, "B T H K"],
        k: Float[Array, "B S G K"],
        v: Float[Array, "B S G U"],
        mask: Mask,
        bias: Any,
        dropout: Any,
        o: Float[Array, "B T H U"],
        lse: Float[Array, "B H T"],
        do: Float[Array, "B T H U"],
    ) -> tuple[Array, Array, Array, Leaves]:
        """This block's share of (dq, dk, dv, dbias), given o and lse over all keys."""
        ...


def merge(
    o: Float[Array, "B T H U"],
    lse: Float[Array, "B H T"],
    more_o: Float[Array, "B T H U"],
    more_lse: Float[Array, "B H T"],
) -> tuple[Float[Array, "B T H U"], Float[Array, "B H T"]]:
    """Two parts of the keys as one; float32."""
    highest = jnp.maximum(lse, more_lse)
    highest = jnp.where(jnp.isneginf(highest), 0.0, highest)
    a, b = jnp.exp(lse - highest), jnp.exp(more_lse - highest)
    total = a + b
    share = 1.0 / jnp.where(total == 0.0, 1.0, total)
    weigh = lambda part, w: part.astype(jnp.float32) * jnp.swapaxes(w * share, 1, 2)[..., None]  # noqa: E731
    return weigh(o, a) + weigh(more_o, b), highest + jnp.log(total)


def join(x: Array) -> Array:
    """Blocks that a loop has stacked, put together: [C, B, size, ...] → [B, C · size, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def attend_in_blocks(
    kernel: Kernel,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G U"],
    mask: Mask,
    bias: Any,
    dropout: Any,
) -> Float[Array, "B T H U"]:
    """A kernel as a function to differentiate, in q, k, v and what the bias has learned."""
    structure, learned, fixed = _Structure.of((mask, bias, dropout))
    return _attend(kernel, structure, learned, fixed, q, k, v)


@dataclass(frozen=True)
class _Structure:
    """How a tree is put together from its leaves that are learned and those that are fixed."""

    tree: Any
    is_learned: tuple[bool, ...]

    @classmethod
    def of(cls, tree: Any) -> "tuple[_Structure, Leaves, Leaves]":
        leaves, structure = jax.tree.flatten(tree)
        is_learned = tuple(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
        by_kind: dict[bool, Leaves] = {True: [], False: []}
        for leaf, kind in zip(leaves, is_learned, strict=True):
            by_kind[kind].append(leaf)
        return cls(structure, is_learned), by_kind[True], by_kind[False]

    def whole(self, learned: Leaves, fixed: Leaves) -> Any:
        rest = {True: iter(learned), False: iter(fixed)}
        return self.tree.unflatten([next(rest[kind]) for kind in self.is_learned])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    kernel: Kernel,
    structure: _Structure,
    learned: Leaves,
    fixed: Leaves,
    q: Array,
    k: Array,
    v: Array,
) -> Array:
    return _forward(kernel, structure, learned, fixed, q, k, v)[0]


def _forward(
    kernel: Kernel,
    structure: _Structure,
    learned: Leaves,
    fixed: Leaves,
    q: Array,
    k: Array,
    v: Array,
) -> tuple[Array, tuple]:
    # The derivative of a loop over layers would compute ahead, for all pairs of blocks at once,
    # what depends on the mask alone, and keep it: memory quadratic in the length. Tied to q, it
    # waits.
    learned, fixed, q, k, v = jax.lax.optimization_barrier((learned, fixed, q, k, v))
    mask, bias, dropout = structure.whole(learned, fixed)
    o, lse = kernel.forward(q, k, v, mask, bias, dropout)
    o = o.astype(q.dtype)
    return o, (learned, fixed, q, k, v, o, lse)


def _backward(kernel: Kernel, structure: _Structure, saved: tuple, do: Array) -> tuple:
    learned, fixed, q, k, v, o, lse = saved
    mask, bias, dropout = structure.whole(learned, fixed)
    dq, dk, dv, dlearned = kernel.backward(q, k, v, mask, bias, dropout, o, lse, do)
    like = zip(dlearned, learned, strict=True)
    grads = (dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype))
    return [new.astype(old.dtype) for new, old in like], None, *grads


_attend.defvjp(_forward, _backward)


def float_leaves(tree: Any) -> Leaves:
    """What of a bias is learned."""
    return _Structure.of(tree)[1]


def bias_and_pull(
    bias: Any, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
) -> tuple[Array, Any]:
    """A block's bias, float32 [b, h, T, S] (b and h may be 1), and the way back to its leaves."""
    structure, learned, fixed = _Structure.of(bias)

    def evaluate(learned: Leaves) -> Array:
        return structure.whole(learned, fixed)(q_positions, k_positions).astype(jnp.float32)

    return jax.vjp(evaluate, learned)


@struct.dataclass
class HeadsFrom:
    """A bias of a range of heads: what a device that holds these computes."""

    bias: Any
    first: Int[Array, ""]
    heads: int = struct.field(pytree_node=False)

    def __call__(self, q_positions: Array, k_positions: Array) -> Array:
        b_BHTS = self.bias(q_positions, k_positions)
        if b_BHTS.shape[1] == 1:
            return b_BHTS
        return jax.lax.dynamic_slice_in_dim(b_BHTS, self.first, self.heads, axis=1)
