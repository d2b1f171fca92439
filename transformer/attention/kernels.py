"""What a block kernel is: attention of some queries over some keys, and how parts are put together.

Softmax over all keys can be had from parts: each part gives its own softmax's output `o` and the
log of its normaliser, `lse`; the parts' outputs are then weighted by exp(lse) (Milakov and
Gimelshein 2018; Dao et al. 2022). The backward pass needs nothing but the whole's `lse` and output,
so it too goes part by part. One device visits parts in turn; a ring of devices sends them round.
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
    return _attend(*_Rest.of(mask, bias, dropout, kernel), q, k, v)


@dataclass(frozen=True)
class _Rest:
    """How (mask, bias, dropout) are put together from what is learned of them and what is not."""

    kernel: Kernel
    tree: Any
    is_learned: tuple[bool, ...]

    @classmethod
    def of(
        cls, mask: Mask, bias: Any, dropout: Any, kernel: Kernel
    ) -> "tuple[_Rest, Leaves, list]":
        leaves, tree = jax.tree.flatten((mask, bias, dropout))
        is_learned = tuple(map(_floating, leaves))
        fixed = [leaf for leaf, learned in zip(leaves, is_learned, strict=True) if not learned]
        return cls(kernel, tree, is_learned), float_leaves(leaves), fixed

    def whole(self, learned: Leaves, fixed: list[Array]) -> tuple[Mask, Any, Any]:
        each = {True: iter(learned), False: iter(fixed)}
        return self.tree.unflatten([next(each[kind]) for kind in self.is_learned])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    rest: _Rest, learned: Leaves, fixed: list[Array], q: Array, k: Array, v: Array
) -> Array:
    return _forward(rest, learned, fixed, q, k, v)[0]


def _forward(
    rest: _Rest, learned: Leaves, fixed: list[Array], q: Array, k: Array, v: Array
) -> tuple[Array, tuple]:
    o, lse = rest.kernel.forward(q, k, v, *rest.whole(learned, fixed))
    o = o.astype(q.dtype)
    return o, (learned, fixed, q, k, v, o, lse)


def _backward(rest: _Rest, saved: tuple, do: Array) -> tuple:
    learned, fixed, q, k, v, o, lse = saved
    more = rest.whole(learned, fixed)
    dq, dk, dv, dlearned = rest.kernel.backward(q, k, v, *more, o, lse, do)
    like = zip(dlearned, learned, strict=True)
    grads = (dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype))
    return [new.astype(old.dtype) for new, old in like], None, *grads


_attend.defvjp(_forward, _backward)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def float_leaves(tree: Any) -> Leaves:
    """What of a bias is learned."""
    return [leaf for leaf in jax.tree.leaves(tree) if _floating(leaf)]


def bias_and_pull(bias: Any, q_positions: Array, k_positions: Array) -> tuple[Array, Any]:
    """A block's bias, float32 [b, h, T, S] (b and h may be 1), and the way back to its leaves."""
    leaves, tree = jax.tree.flatten(bias)
    learned = [_floating(leaf) for leaf in leaves]

    def evaluate(floats: Leaves) -> Array:
        rest = iter(floats)
        whole = [
            next(rest) if is_learned else leaf
            for leaf, is_learned in zip(leaves, learned, strict=True)
        ]
        return tree.unflatten(whole)(q_positions, k_positions).astype(jnp.float32)

    return jax.vjp(evaluate, float_leaves(bias))


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
