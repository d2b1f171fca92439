"""Ring attention: each device keeps its queries, and the keys and values travel round.

While a device attends over the keys it has, the next ones are under way from its neighbour
(Liu, Zaharia and Abbeel 2023). In the backward pass they go round again, and their gradients with
them, one step behind, so that neither waits for the other. Where attention is causal the last
positions see the most: each device then takes one piece from the front of the sequence and the
mirrored one from its back, so that all have the same to do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.attention.kernels import (
    Kernel,
    Leaves,
    attend_in_blocks,
    float_leaves,
    join,
    merge,
)
from transformer.attention.masks import Mask

Axes = tuple[str, ...]


def balanced(mask: Mask) -> bool:
    """Whether positions are exchanged first: full causal attention, whose work is uneven."""
    return mask.is_causal and mask.window is None


def attend(
    kernel: Kernel, axes: Axes, q: Array, k: Array, v: Array, mask: Mask, bias: Any, dropout: Any
) -> Array:
    """What each device runs under `shard_map`: its own [B, T, H, K], [B, S, G, K], [B, S, G, U]."""
    if not balanced(mask):
        return attend_in_blocks(Ring(kernel, axes, 1), q, k, v, mask, bias, dropout)
    there, back = _mirrored(axes, jax.lax.axis_size(axes))
    q, k, v, mask = jax.tree.map(there, (q, k, v, mask))
    return back(attend_in_blocks(Ring(kernel, axes, 2), q, k, v, mask, bias, dropout))


@dataclass(frozen=True)
class Ring:
    """The kernel (`kernels.Kernel`) of a device's queries over all devices' keys.

    A device's keys are `pieces` stretches of the sequence; the block kernel takes one at a time.
    """

    kernel: Kernel
    axes: Axes
    pieces: int

    def forward(
        self, q: Array, k: Array, v: Array, mask: Mask, bias: Any, dropout: Any
    ) -> tuple[Array, Array]:
        B, T, H, _ = q.shape

        def visit(sums: Any, keys: Any) -> Any:
            def piece(sums: Any, keys: Any) -> tuple[Any, None]:
                k, v, part = keys[0], keys[1], self._masked(mask, keys)
                more_o, more_lse = self.kernel.forward(q, k, v, part, bias, dropout)
                return merge(sums[0], sums[1], more_o, more_lse), None

            return jax.lax.scan(piece, sums, keys)[0]

        def hop(carry: Any, _: None) -> tuple[Any, None]:
            keys, sums = carry
            coming = self._pass_on(keys)
            return (coming, visit(sums, keys)), None

        nothing = (
            jnp.zeros((B, T, H, v.shape[-1]), jnp.float32),
            jnp.full((B, H, T), -jnp.inf, jnp.float32),
        )
        start = (self._keys(k, v, mask), nothing)
        (keys, sums), _ = jax.lax.scan(hop, start, length=jax.lax.axis_size(self.axes) - 1)
        return visit(sums, keys)

    def backward(
        self,
        q: Array,
        k: Array,
        v: Array,
        mask: Mask,
        bias: Any,
        dropout: Any,
        o: Array,
        lse: Array,
        do: Array,
    ) -> tuple[Array, Array, Array, Leaves]:
        def visit(sums: Any, keys: Any) -> tuple[Any, Any]:
            """Adds to (dq, dbias), and gives this block's share of (dk, dv)."""

            def piece(sums: Any, keys: Any) -> tuple[Any, Any]:
                k, v, part = keys[0], keys[1], self._masked(mask, keys)
                dq, dk, dv, dbias = self.kernel.backward(q, k, v, part, bias, dropout, o, lse, do)
                more = jax.tree.map(lambda x: x.astype(jnp.float32), ((dq, dbias), (dk, dv)))
                return jax.tree.map(jnp.add, sums, more[0]), more[1]

            return jax.lax.scan(piece, sums, keys)

        def hop(carry: Any, _: None) -> tuple[Any, None]:
            keys, dkeys, sums = carry
            coming, arriving = self._pass_on(keys), self._pass_on(dkeys)
            sums, more = visit(sums, keys)
            return (coming, jax.tree.map(jnp.add, arriving, more), sums), None

        nothing = (
            jnp.zeros(q.shape, jnp.float32),
            [jnp.zeros(leaf.shape, jnp.float32) for leaf in float_leaves(bias)],
        )
        own = self._keys(k, v, mask)
        sums, dkeys = visit(nothing, own)
        (_, dkeys, sums), _ = jax.lax.scan(
            hop, (self._pass_on(own), dkeys, sums), length=jax.lax.axis_size(self.axes) - 1
        )
        # The gradients stand one device short of where their keys came from.
        dk, dv = jax.tree.map(join, self._pass_on(dkeys))
        return sums[0], dk, dv, sums[1]

    def _keys(self, k: Array, v: Array, mask: Mask) -> Any:
        """What travels, its pieces stacked on a leading axis."""

        def stacked(x: Array) -> Array:
            if x.ndim == 1:
                return x.reshape(self.pieces, -1)
            return jnp.moveaxis(x.reshape(x.shape[0], self.pieces, -1, *x.shape[2:]), 1, 0)

        return jax.tree.map(stacked, (k, v, mask.k_segments, mask.k_positions, mask.k_index))

    def _masked(self, mask: Mask, keys: Any) -> Mask:
        _, _, segments, positions, index = keys
        return mask.replace(  # pyright: ignore
            k_segments=segments, k_positions=positions, k_index=index
        )

    def _pass_on(self, tree: Any) -> Any:
        count = jax.lax.axis_size(self.axes)
        ring = [(device, (device + 1) % count) for device in range(count)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, ring), tree)


def _mirrored(axes: Axes, count: int) -> tuple[Callable, Callable]:
    """Moves each device's two neighbouring pieces to its mirrored pair, or back.

    Of 2n pieces, device d begins with 2d and 2d + 1 and gets d and 2n - 1 - d.
    """
    owner = [min(piece, 2 * count - 1 - piece) for piece in range(2 * count)]
    moves = [[(device, owner[2 * device + half]) for device in range(count)] for half in (0, 1)]

    def exchange(x: Array, moves: list[list[tuple[int, int]]]) -> Array:
        axis = 0 if x.ndim == 1 else 1
        halves = jnp.split(x, 2, axis)
        moved = [jax.lax.ppermute(h, axes, m) for h, m in zip(halves, moves, strict=True)]
        return jnp.concatenate(moved, axis)

    returns = [[(target, origin) for origin, target in half] for half in moves]
    return lambda x: exchange(x, moves), lambda x: exchange(x, returns)
