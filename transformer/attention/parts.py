"""A step of decoding: one position of W hypotheses over keys that are kept, in parts.

Kept keys and values are laid out as the two products read them, so that none is transposed at any
position. Queries are few, so whole scores are small, whatever the backend of everything else.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention.reference import masked_softmax


@struct.dataclass
class Kept:
    """Keys and values as decoding keeps them."""

    k: Any  # [B, G, K, S]
    v: Any  # [B, G, S, U]

    @classmethod
    def of(cls, k: Float[Array, "B S G K"], v: Float[Array, "B S G U"]) -> Self:
        return cls(jnp.transpose(k, (0, 2, 3, 1)), jnp.transpose(v, (0, 2, 1, 3)))

    def write(self, new: "Kept", place: Int[Array, ""]) -> Self:
        """With other ones from `place` on; made in place where nothing else needs the old."""
        update = jax.lax.dynamic_update_slice_in_dim
        k, v = update(self.k, new.k, place, axis=3), update(self.v, new.v, place, axis=2)
        return self.replace(k=k, v=v)  # pyright: ignore


@struct.dataclass
class Part:
    """Keys and values, who may see them, and what is added to scores."""

    kept: Kept
    allowed: Any  # bool [B, W or 1, S]
    bias: Any = None  # [B or 1, H or 1, W or 1, S]


def attend_to_parts(q: Float[Array, "B W H K"], *parts: Part) -> Float[Array, "B W H U"]:
    """softmax(q kᵀ / √K + bias) v over all parts' keys (AIAYN §3.2.1, Eq. 1).

    G key/value heads serve H query heads in equal groups. Products take their inputs' dtype and
    accumulate in float32, in which the softmax is computed.
    """
    B, W, H, K = q.shape
    G = parts[0].kept.k.shape[1]
    q_BGRK = jnp.moveaxis(q * K**-0.5, 2, 1).reshape(B, G, H // G * W, K)

    def scores(part: Part) -> Float[Array, "B H W S"]:
        scores_BGRS = jnp.einsum(
            "BGRK,BGKS->BGRS", q_BGRK, part.kept.k, preferred_element_type=jnp.float32
        )
        scores_BHWS = scores_BGRS.reshape(B, H, W, -1)
        return scores_BHWS if part.bias is None else scores_BHWS + part.bias.astype(jnp.float32)

    allowed = [jnp.broadcast_to(p.allowed, (B, W, p.allowed.shape[2])) for p in parts]
    weights_BHWS = masked_softmax(
        jnp.concatenate([scores(part) for part in parts], axis=3),
        jnp.concatenate(allowed, axis=2)[:, None],
    )
    out_BGRU, first = jnp.float32(0), 0
    for part in parts:
        v_BGSU = part.kept.v
        S = v_BGSU.shape[2]
        weights_BGRS = weights_BHWS[..., first : first + S].reshape(B, G, -1, S)
        out_BGRU += jnp.einsum(
            "BGRS,BGSU->BGRU",
            weights_BGRS.astype(v_BGSU.dtype),
            v_BGSU,
            preferred_element_type=jnp.float32,
        )
        first += S
    return jnp.moveaxis(out_BGRU.reshape(B, H, W, -1), 1, 2).astype(q.dtype)
