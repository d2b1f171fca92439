"""Attention as two batched matrix products that XLA fuses around: any device, quadratic memory.

Products take their inputs' dtype (bfloat16 stays bfloat16) and accumulate in float32, in which the
softmax is computed; grouped key/value heads are never repeated in memory.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout, drop, masked_softmax


def attend(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G U"],
    mask: Mask,
    bias: Any = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H U"]:
    weights_BHTS = masked_softmax(_scores(q, k, mask, bias), mask.dense()[:, None])
    if dropout is not None:
        weights_BHTS = drop(weights_BHTS, dropout)
    return _weighted(weights_BHTS, v).astype(q.dtype)


def _scores(q: Array, k: Array, mask: Mask, bias: Any) -> Float[Array, "B H T S"]:
    B, T, H, K = q.shape
    S, G = k.shape[1:3]
    # The H // G query heads that share one key/value head are rows of one product, R = H // G · T,
    # laid out as the scores will be: those are never transposed.
    q_BGRK = jnp.moveaxis(q * K**-0.5, 2, 1).reshape(B, G, H // G * T, K)
    scores_BGRS = jnp.einsum("BGRK,BSGK->BGRS", q_BGRK, k, preferred_element_type=jnp.float32)
    scores_BHTS = scores_BGRS.reshape(B, H, T, S)
    if bias is not None:
        scores_BHTS += bias(mask.q_positions, mask.k_positions).astype(jnp.float32)
    return scores_BHTS


def _weighted(weights_BHTS: Array, v: Array) -> Float[Array, "B T H U"]:
    B, H, T, S = weights_BHTS.shape
    G, U = v.shape[2:]
    weights_BGRS = weights_BHTS.reshape(B, G, H // G * T, S).astype(v.dtype)
    out_BGRU = jnp.einsum("BGRS,BSGU->BGRU", weights_BGRS, v, preferred_element_type=jnp.float32)
    return jnp.moveaxis(out_BGRU.reshape(B, H, T, U), 1, 2)
