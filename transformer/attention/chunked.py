"""FlashAttention in plain JAX: online softmax block by block, memory linear in the length.

Each block of queries meets the blocks of keys in turn and keeps a running maximum, normaliser and
output (Milakov and Gimelshein 2018; Rabe and Staats 2021). The backward pass computes each block's
weights again from the saved normaliser (Dao et al. 2022, Algorithm 4). A pair of blocks in which no
query sees a key is passed over, which the mask's own data say: half of the work where it is causal.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from transformer.attention.kernels import Leaves, bias_and_pull, float_leaves, join
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout
from transformer.upstream.threefry import bernoulli


@struct.dataclass
class _Queries:
    """Blocks of queries, stacked on the leading axis C: what one step of a loop takes."""

    number: Any
    q: Any  # B t G r K, scaled; r: the query heads that share a key/value head
    segments: Any
    positions: Any
    do: Any = None  # B t G r U
    lse: Any = None  # B G r t, 0 where it is -inf
    delta: Any = None  # B G r t


@struct.dataclass
class _Keys:
    number: Any
    k: Any  # B s G K
    v: Any
    segments: Any
    positions: Any


@dataclasses.dataclass(frozen=True)
class Chunked:
    """The kernel (`kernels.Kernel`): at most this many queries meet this many keys at once."""

    block_q: int = 512
    block_k: int = 512

    def forward(
        self, q: Array, k: Array, v: Array, mask: Mask, bias: Any, dropout: Dropout | None
    ) -> tuple[Array, Array]:
        B, T, H, _ = q.shape
        G, U = v.shape[2:]
        queries, keys = self._queries(q, G, mask), self._keys(k, v, mask)

        def each_queries(qs: _Queries) -> tuple[Array, Array]:
            def each_keys(sums: Any, ks: _Keys) -> tuple[Any, None]:
                allowed_BtS = _allowed(qs, ks, mask)
                add = lambda sums: _attend_pair(sums, qs, ks, allowed_BtS, bias, dropout)  # noqa: E731
                return jax.lax.cond(allowed_BtS.any(), add, lambda sums: sums, sums), None

            rows = (B, G, H // G, qs.q.shape[1])
            nothing = _zeros(*rows, U), _zeros(*rows) - jnp.inf, _zeros(*rows)
            (o, highest, total), _ = jax.lax.scan(each_keys, nothing, keys)
            o = o / jnp.where(total == 0.0, 1.0, total)[..., None]
            return o, jnp.where(total == 0.0, -jnp.inf, highest + jnp.log(total))

        o, lse = jax.lax.map(each_queries, queries)  # C B G r t (U)
        o_BTHU = jnp.moveaxis(o, (0, 4), (1, 2)).reshape(B, -1, H, U)[:, :T]
        lse_BHT = jnp.moveaxis(lse, 0, 3).reshape(B, H, -1)[:, :, :T]
        return o_BTHU, lse_BHT

    def backward(
        self,
        q: Array,
        k: Array,
        v: Array,
        mask: Mask,
        bias: Any,
        dropout: Dropout | None,
        o: Array,
        lse: Array,
        do: Array,
    ) -> tuple[Array, Array, Array, Leaves]:
        B, T, H, K = q.shape
        S, G = v.shape[1:3]
        queries, keys = self._queries(q, G, mask, o, lse, do), self._keys(k, v, mask)

        def each_keys(sums: Any, ks: _Keys) -> tuple[Any, tuple[Array, Array]]:
            dq_CBtGrK, dbias = sums

            def each_queries(sums: Any, row: tuple[_Queries, Array]) -> tuple[Any, Array]:
                qs, dq = row
                allowed_BtS = _allowed(qs, ks, mask)

                def add(sums: Any, dq: Array) -> tuple[Any, Array]:
                    more_dq, more = _differentiate_pair(qs, ks, allowed_BtS, bias, dropout)
                    return jax.tree.map(jnp.add, sums, more), dq + more_dq

                leave = lambda sums, dq: (sums, dq)  # noqa: E731
                return jax.lax.cond(allowed_BtS.any(), add, leave, sums, dq)

            nothing = (_zeros(*ks.k.shape), _zeros(*ks.v.shape), dbias)
            (dk, dv, dbias), dq_CBtGrK = jax.lax.scan(each_queries, nothing, (queries, dq_CBtGrK))
            return (dq_CBtGrK, dbias), (dk, dv)

        nothing = _zeros(*queries.q.shape), [_zeros(*leaf.shape) for leaf in float_leaves(bias)]
        (dq, dbias), (dk, dv) = jax.lax.scan(each_keys, nothing, keys)
        dq_BTHK = join(dq * K**-0.5).reshape(B, -1, H, K)[:, :T]
        return dq_BTHK, join(dk)[:, :S], join(dv)[:, :S], dbias

    def _queries(self, q: Array, G: int, mask: Mask, *backward: Array) -> _Queries:
        B, T, H, K = q.shape
        size = min(self.block_q, T)
        cut = lambda x: _cut(x, size)  # noqa: E731
        q_BTGrK = (q * K**-0.5).reshape(B, T, G, H // G, K)
        blocks = _Queries(
            jnp.arange(-(-T // size)), cut(q_BTGrK), cut(mask.q_segments), cut(mask.q_positions)
        )
        if not backward:
            return blocks
        o, lse, do = backward
        delta_BTH = jnp.sum(o.astype(jnp.float32) * do.astype(jnp.float32), axis=-1)
        lse_BTH = jnp.swapaxes(jnp.where(jnp.isneginf(lse), 0.0, lse), 1, 2)

        def rows(x_BTH: Array) -> Array:
            return jnp.moveaxis(cut(x_BTH.reshape(B, T, G, H // G)), 2, 4)

        return blocks.replace(  # pyright: ignore
            do=cut(do.reshape(B, T, G, H // G, -1)), lse=rows(lse_BTH), delta=rows(delta_BTH)
        )

    def _keys(self, k: Array, v: Array, mask: Mask) -> _Keys:
        size = min(self.block_k, k.shape[1])
        number = jnp.arange(-(-k.shape[1] // size))
        parts = (k, v, mask.k_segments, mask.k_positions)
        return _Keys(number, *(_cut(x, size) for x in parts))


def _cut(x: Array, size: int) -> Array:
    """[B, T, ...] → [C, B, size, ...], padded with zeros: padding's own segment."""
    padding = -x.shape[1] % size
    if padding:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)


def _allowed(qs: _Queries, ks: _Keys, mask: Mask) -> Array:
    return Mask(
        qs.segments, ks.segments, qs.positions, ks.positions, mask.is_causal, mask.window
    ).dense()


def _zeros(*shape: int) -> Array:
    return jnp.zeros(shape, jnp.float32)


def _product(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _attend_pair(
    sums: tuple[Array, Array, Array],
    qs: _Queries,
    ks: _Keys,
    allowed_BtS: Array,
    bias: Any,
    dropout: Dropout | None,
) -> tuple[Array, Array, Array]:
    """Adds a block of keys to its queries' running output, maximum and normaliser."""
    o_BGrtU, highest_BGrt, total_BGrt = sums
    scores = jnp.where(allowed_BtS[:, None, None], _scores(qs, ks, bias), -jnp.inf)
    new_BGrt = jnp.maximum(highest_BGrt, jnp.max(scores, axis=-1))
    finite_BGrt = jnp.where(jnp.isneginf(new_BGrt), 0.0, new_BGrt)
    weights = jnp.exp(scores - finite_BGrt[..., None])
    decay_BGrt = jnp.exp(highest_BGrt - finite_BGrt)
    total_BGrt = total_BGrt * decay_BGrt + jnp.sum(weights, axis=-1)
    if dropout is not None:
        weights = weights * _kept(dropout, qs.number, ks.number, weights.shape)
    more_BGrtU = _product("BGrts,BsGU->BGrtU", weights.astype(ks.v.dtype), ks.v)
    return o_BGrtU * decay_BGrt[..., None] + more_BGrtU, new_BGrt, total_BGrt


def _differentiate_pair(
    qs: _Queries, ks: _Keys, allowed_BtS: Array, bias: Any, dropout: Dropout | None
) -> tuple[Array, tuple[Array, Array, Leaves]]:
    """One pair of blocks' shares of dq (of the scaled queries), and of (dk, dv, dbias)."""
    weights = jnp.exp(_scores(qs, ks, bias) - qs.lse[..., None])
    weights = jnp.where(allowed_BtS[:, None, None], weights, 0.0)
    dweights = _product("BtGrU,BsGU->BGrts", qs.do, ks.v)
    dropped = weights
    if dropout is not None:
        scaled_mask = _kept(dropout, qs.number, ks.number, weights.shape)
        dropped, dweights = weights * scaled_mask, dweights * scaled_mask
    dscores = weights * (dweights - qs.delta[..., None])
    dv_BsGU = _product("BGrts,BtGrU->BsGU", dropped.astype(qs.do.dtype), qs.do)
    dk_BsGK = _product("BGrts,BtGrK->BsGK", dscores.astype(qs.q.dtype), qs.q)
    dq_BtGrK = _product("BGrts,BsGK->BtGrK", dscores.astype(ks.k.dtype), ks.k)
    return dq_BtGrK, (dk_BsGK, dv_BsGU, _pull_bias(bias, qs, ks, dscores))


def _scores(qs: _Queries, ks: _Keys, bias: Any) -> Array:
    scores = _product("BtGrK,BsGK->BGrts", qs.q, ks.k)
    if bias is None:
        return scores
    value = bias(qs.positions, ks.positions).astype(jnp.float32)
    return scores + _by_group(value, scores)


def _by_group(value_BHts: Array, like_BGrts: Array) -> Array:
    """[b, h, t, s] → [b, G, r, t, s], or [b, 1, 1, t, s] where the heads share it."""
    b, h, t, s = value_BHts.shape
    G, r = like_BGrts.shape[1:3] if h > 1 else (1, 1)
    return value_BHts.reshape(b, G, r, t, s)


def _pull_bias(bias: Any, qs: _Queries, ks: _Keys, dscores_BGrts: Array) -> Leaves:
    if bias is None or not float_leaves(bias):
        return []
    value, pull = bias_and_pull(bias, qs.positions, ks.positions)
    B, G, r, t, s = dscores_BGrts.shape
    d_BHts = dscores_BGrts.reshape(B, G * r, t, s)
    for axis, (have, want) in enumerate(zip(d_BHts.shape, value.shape, strict=True)):
        if have != want:
            d_BHts = jnp.sum(d_BHts, axis=axis, keepdims=True)
    return [leaf.astype(jnp.float32) for leaf in pull(d_BHts)[0]]


def _kept(dropout: Dropout, q_number: Array, k_number: Array, shape: tuple[int, ...]) -> Array:
    """This pair of blocks' dropout: 0, or what makes up for the zeros; the same in both passes."""
    key = jax.random.fold_in(jax.random.fold_in(dropout.key, q_number), k_number)
    keep = bernoulli(key, 1.0 - dropout.rate, shape)
    return keep.astype(jnp.float32) / (1.0 - dropout.rate)
