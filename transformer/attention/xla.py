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
    B, T, H, K = q.shape
    S, G = k.shape[1:3]
    # r: the H // G query heads that share one key/value head.
    q_BTGrK = (q * K**-0.5).reshape(B, T, G, H // G, K)
    scores_BGrTS = jnp.einsum("BTGrK,BSGK->BGrTS", q_BTGrK, k, preferred_element_type=jnp.float32)
    if bias is not None:
        bias_BHTS = bias(mask.q_positions, mask.k_positions).astype(jnp.float32)
        bias_BHTS = jnp.broadcast_to(bias_BHTS, (bias_BHTS.shape[0], H, T, S))
        scores_BGrTS += bias_BHTS.reshape(-1, G, H // G, T, S)
    weights_BGrTS = masked_softmax(scores_BGrTS, mask.dense()[:, None, None])
    if dropout is not None:
        weights_BGrTS = drop(weights_BGrTS.reshape(B, H, T, S), dropout).reshape(scores_BGrTS.shape)
    out_BTGrU = jnp.einsum(
        "BGrTS,BSGU->BTGrU", weights_BGrTS.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return out_BTGrU.reshape(B, T, H, v.shape[-1]).astype(q.dtype)
