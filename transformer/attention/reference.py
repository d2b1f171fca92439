"""The specification: scaled dot-product attention as the paper writes it (AIAYN §3.2.1, Eq. 1).

In float32, one line an operation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from transformer.attention.masks import Mask
from transformer.upstream.threefry import bernoulli


@struct.dataclass
class Dropout:
    """Dropout on attention weights: each is zeroed with probability `rate`, the rest scaled up."""

    key: PRNGKeyArray
    rate: float = struct.field(pytree_node=False)


def attend(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G U"],
    mask: Mask,
    bias: Any = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H U"]:
    """AIAYN §3.2.1, Eq. 1."""
    weights_BHTS = attention_weights(q, k, mask=mask, bias=bias)
    if dropout is not None:
        weights_BHTS = drop(weights_BHTS, dropout)
    v_BSHU = jnp.repeat(v, q.shape[2] // v.shape[2], axis=2).astype(jnp.float32)
    return jnp.einsum("BHTS,BSHU->BTHU", weights_BHTS, v_BSHU).astype(q.dtype)


def attention_weights(
    q: Float[Array, "B T H K"], k: Float[Array, "B S G K"], *, mask: Mask, bias: Any = None
) -> Float[Array, "B H T S"]:
    """softmax(q kᵀ / √K + bias) over the allowed keys, float32: what people look at.

    A row sums to 1, or is all zeros where the query may see no key.
    """
    k_BSHK = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2).astype(jnp.float32)
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q.astype(jnp.float32), k_BSHK) * q.shape[-1] ** -0.5
    if bias is not None:
        scores_BHTS = scores_BHTS + bias(mask.q_positions, mask.k_positions).astype(jnp.float32)
    return masked_softmax(scores_BHTS, mask.dense()[:, None])


def masked_softmax(scores: Float[Array, "*rows S"], allowed: Array) -> Float[Array, "*rows S"]:
    """Softmax over the allowed entries of the last axis; zeros, with zero gradients, if none is."""
    lowest = jnp.finfo(scores.dtype).min
    scores = jnp.where(allowed, scores, lowest)
    # A row with nothing allowed is uniform here, and zero after the second `where`: finite
    # throughout, so that no NaN enters its gradient.
    return jnp.where(allowed, jax.nn.softmax(scores, axis=-1), 0.0)


def drop(weights: Float[Array, "..."], dropout: Dropout) -> Float[Array, "..."]:
    keep = bernoulli(dropout.key, 1.0 - dropout.rate, weights.shape)
    return jnp.where(keep, weights / (1.0 - dropout.rate), 0.0).astype(weights.dtype)
