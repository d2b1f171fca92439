"""Sharded attention: a kernel on each device's own rows, heads and positions, under `shard_map`.

Rows and heads need nothing of each other. Of a length that is split, each device has its own
queries; the keys it lacks are gathered here, or come by `ring` or `ulysses`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh as Devices
from jax.sharding import PartitionSpec
from jaxtyping import Array

from transformer.attention.kernels import HeadsFrom
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout
from transformer.sharding import Layout


@dataclass(frozen=True)
class Split:
    """Which axes of a mesh split the rows, the positions (of queries and keys) and the heads.

    Splitting rows is data parallelism, positions sequence (context) parallelism, heads tensor
    parallelism.
    """

    devices: Devices
    batch: tuple[str, ...] = ()
    length: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Translates a layout: its rules for the axes batch, length and heads."""
        return cls(layout.mesh, *(layout.mesh_axes(name) for name in ("batch", "length", "heads")))

    def count(self, axes: tuple[str, ...]) -> int:
        return math.prod(self.devices.shape[axis] for axis in axes)

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu: where it will run, which need not be where it is compiled."""
        return self.devices.devices.flat[0].platform


Local = Callable[[Array, Array, Array, Mask, Any, Dropout | None], Array]


def per_device(
    function: Local,
    split: Split | None,
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    bias: Any,
    dropout: Dropout | None,
    *,
    keys: str = "whole",
    pieces: int = 1,
) -> Array:
    """Runs `function` on each device's share, under `shard_map`; gives out [B, T, H, U].

    Args:
        function: (q, k, v, mask, bias, dropout) -> out, for the heads and positions it is given.
        keys: "whole": every device gets the keys of all positions; "split": its own.
        pieces: what a device's positions must be a multiple of; padding makes up for the rest.
    """
    if split is None or split.devices.size == 1:
        return function(q, k, v, mask, bias, dropout)
    batch, length, heads = (axes or None for axes in (split.batch, split.length, split.heads))
    key_length = length if keys == "split" else None
    multiple = split.count(split.length) * pieces
    T = q.shape[1]
    q, k, v, mask = _padded(q, k, v, mask, multiple, multiple if keys == "split" else 1)

    def local(q: Array, k: Array, v: Array, mask: list[Array], bias: Any, dropout: Any) -> Array:
        if bias is not None:
            bias = HeadsFrom(bias, _index(split.heads) * q.shape[2], q.shape[2])
        if dropout is not None:
            number = _index((*split.batch, *split.length, *split.heads))
            dropout = Dropout(jax.random.fold_in(dropout.key, number), dropout.rate)
        return function(q, k, v, tree.unflatten(mask), bias, dropout)

    def spec(path: Any, leaf: Array) -> PartitionSpec:
        along = length if path[0].name.startswith("q_") else key_length
        return PartitionSpec(along) if leaf.ndim == 1 else PartitionSpec(batch, along)

    paths, tree = jax.tree_util.tree_flatten_with_path(mask)
    specs = [spec(path, leaf) for path, leaf in paths]
    leaves = [leaf for _, leaf in paths]
    whole = PartitionSpec()
    q_spec, k_spec = (PartitionSpec(batch, along, heads) for along in (length, key_length))
    mapped = jax.shard_map(
        local,
        mesh=split.devices,
        in_specs=(q_spec, k_spec, k_spec, specs, whole, whole),
        out_specs=q_spec,
        check_vma=False,  # Pallas kernels do not say what varies over which axis
    )
    return mapped(q, k, v, leaves, bias, dropout)[:, :T]


def indivisible(split: Split | None, rows: int, heads: int, key_heads: int) -> str | None:
    """Why the shares would be unequal; None where they are not."""
    if split is None:
        return None
    for what, size, axes in (
        ("rows", rows, split.batch),
        ("heads", heads, split.heads),
        ("key/value heads", key_heads, split.heads),
    ):
        if size % split.count(axes):
            return f"{size} {what} do not divide over {' x '.join(axes)} = {split.count(axes)}"
    return None


def _index(axes: tuple[str, ...]) -> Array:
    return jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)


def _padded(
    q: Array, k: Array, v: Array, mask: Mask, q_multiple: int, k_multiple: int
) -> tuple[Array, Array, Array, Mask]:
    """Positions up to a multiple; the new ones are padding, of segment 0."""

    def pad(x: Array, multiple: int) -> Array:
        axis = 0 if x.ndim == 1 else 1
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, -x.shape[axis] % multiple)
        return jnp.pad(x, widths) if widths[axis][1] else x

    def pad_mask(path: Any, leaf: Array) -> Array:
        return pad(leaf, q_multiple if path[0].name.startswith("q_") else k_multiple)

    mask = jax.tree_util.tree_map_with_path(pad_mask, mask)
    return pad(q, q_multiple), pad(k, k_multiple), pad(v, k_multiple), mask
