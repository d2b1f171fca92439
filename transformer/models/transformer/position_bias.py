"""Relative positions as a bias on self-attention's scores: ALiBi, T5's buckets, Shaw's keys.

Each is a function of query and key positions that a backend evaluates block by block
(`attention.attend`); what it has learned are its pytree leaves.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Alibi:
    """-slope · |distance|, a slope a head, nothing learned (Press et al. 2022, §3)."""

    heads: int = struct.field(pytree_node=False)

    def __call__(
        self, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
    ) -> Float[Array, "B H T S"]:
        distance_BTS = jnp.abs(_distance(q_positions, k_positions)).astype(jnp.float32)
        slopes_H = jnp.asarray(alibi_slopes(self.heads), jnp.float32)
        return -slopes_H[None, :, None, None] * distance_BTS[:, None]


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/H), 2^(-16/H) ... where H is a power of two.

    Elsewhere those of the next lower power, then every other one of the next higher, as the
    authors' code has it.
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (h + 1) / lower) for h in range(lower)]
    return slopes + [2.0 ** (-4.0 * (h + 1) / lower) for h in range(0, 2 * (heads - lower), 2)]


@struct.dataclass
class T5Buckets:
    """A learned scalar for each head and bucket of distances (Raffel et al. 2020, §2.1)."""

    table: Any  # float32 [buckets, H]
    max_distance: int = struct.field(pytree_node=False)
    both_ways: bool = struct.field(pytree_node=False)  # keys may be ahead (encoder), or not

    def __call__(
        self, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
    ) -> Float[Array, "B H T S"]:
        bucket_BTS = t5_bucket(
            _distance(q_positions, k_positions),
            buckets=self.table.shape[0],
            max_distance=self.max_distance,
            both_ways=self.both_ways,
        )
        return jnp.moveaxis(jnp.take(self.table, bucket_BTS, axis=0), 3, 1)


def t5_bucket(
    distance: Int[Array, "*rows"], *, buckets: int, max_distance: int, both_ways: bool
) -> Int[Array, "*rows"]:
    """Which bucket a key `distance` positions ahead (below 0: behind) falls into.

    Half of the buckets are for one distance each, from 0; the others grow by equal factors up to
    `max_distance`, and the last takes all beyond. Where keys may be ahead, these have the upper
    half of all buckets to themselves.
    """
    first = jnp.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = jnp.where(distance > 0, buckets, 0).astype(distance.dtype)
        steps = jnp.abs(distance)
    else:
        steps = jnp.maximum(-distance, 0)
    exact = buckets // 2
    # At least 1, for the logarithm's sake; such steps are counted exactly anyhow.
    ratio = jnp.log(jnp.maximum(steps, 1).astype(jnp.float32) / exact)
    grown = ratio / math.log(max_distance / exact) * (buckets - exact)
    grown = jnp.minimum(exact + grown.astype(distance.dtype), buckets - 1)
    return first + jnp.where(steps < exact, steps, grown)


@struct.dataclass
class ShawKeys:
    """q·a[clip(distance)] / √K: a learned vector a distance, added to keys (Shaw et al. 2018).

    Their Eq. 4, all heads sharing the vectors. It depends on the query itself, so positions here
    are numbers that tell which query it is, too: see `numbered`.
    """

    scores: Any  # float32 [N, H, 2 · clip + 1]: each query's with each vector, N of all rows
    stride: int = struct.field(pytree_node=False)  # numbers to a query

    @classmethod
    def of(cls, q: Float[Array, "B T H K"], table: Float[Array, "R K"], keys: int) -> "ShawKeys":
        """For queries whose rows have `keys` keys."""
        B, T, H, K = q.shape
        scores_BTHR = jnp.einsum(
            "BTHK,RK->BTHR", q, table.astype(q.dtype), preferred_element_type=jnp.float32
        )
        return cls(scores_BTHR.reshape(B * T, H, -1) * K**-0.5, keys // T)

    @classmethod
    def at(cls, q: Float[Array, "B T H K"], table: Float[Array, "R K"]) -> "ShawKeysInRows":
        """For queries of a row that may stand at the same position, evaluated all at once."""
        return ShawKeysInRows(cls.of(q, table, q.shape[1]).scores.reshape(*q.shape[:3], -1))

    def __call__(
        self, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
    ) -> Float[Array, "B H T S"]:
        scores_BTHR = jnp.take(self.scores, q_positions // self.stride, axis=0, mode="clip")
        return _of_distances(scores_BTHR, q_positions, k_positions)


@struct.dataclass
class ShawKeysInRows:
    """`ShawKeys` where the queries are those of `scores`, row by row: positions are positions."""

    scores: Any  # float32 [B, T, H, 2 · clip + 1]

    def __call__(
        self, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
    ) -> Float[Array, "B H T S"]:
        return _of_distances(self.scores, q_positions, k_positions)


def _of_distances(
    scores_BTHR: Array, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]
) -> Float[Array, "B H T S"]:
    """Picks, of each query's scores, the one of each key's distance."""
    clip = scores_BTHR.shape[-1] // 2
    distance_BTS = jnp.clip(_distance(q_positions, k_positions), -clip, clip) + clip
    scores_BHTR = jnp.moveaxis(scores_BTHR, 2, 1)
    return jnp.take_along_axis(scores_BHTR, distance_BTS[:, None], axis=3)


def numbered(rows: int, length: int) -> Int[Array, "B T"]:
    """Positions that are as far apart as those of any segment, and differ between rows."""
    return jnp.arange(rows * length, dtype=jnp.int32).reshape(rows, length)


def _distance(q_positions: Array, k_positions: Array) -> Int[Array, "B T S"]:
    """How far ahead of each query a key is."""
    return k_positions[:, None, :] - q_positions[:, :, None]
