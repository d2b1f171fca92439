"""Ulysses: devices that hold stretches of the sequence trade them for heads, and back.

An all-to-all gives each device all positions of some heads, on which any single-device backend
runs; another brings the outputs back (Jacobs et al. 2023).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.attention.kernels import HeadsFrom
from transformer.attention.masks import Mask
from transformer.attention.sharded import Local


def attend(
    function: Local,
    axes: tuple[str, ...],
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    bias: Any,
    dropout: Any,
) -> Array:
    """What each device runs under `shard_map`: its own [B, T, H, K], [B, S, G, K], [B, S, G, U].

    Key/value heads that are fewer than the devices, or do not divide over them, are repeated.
    """
    count, G = jax.lax.axis_size(axes), k.shape[2]
    copies = math.lcm(G, count) // G

    def to_heads(x: Array) -> Array:
        return jax.lax.all_to_all(x, axes, split_axis=2, concat_axis=1, tiled=True)

    def whole(x: Array) -> Array:
        return jax.lax.all_gather(x, axes, axis=0 if x.ndim == 1 else 1, tiled=True)

    k, v = (jnp.repeat(x, copies, axis=2) if copies > 1 else x for x in (k, v))
    q, k, v = (to_heads(x) for x in (q, k, v))
    if bias is not None:
        bias = HeadsFrom(bias, jax.lax.axis_index(axes) * q.shape[2], q.shape[2])
    out = function(q, k, v, jax.tree.map(whole, mask), bias, dropout)
    return jax.lax.all_to_all(out, axes, split_axis=1, concat_axis=2, tiled=True)
