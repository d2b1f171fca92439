"""A step of decoding whose keys are of two kinds: those that hypotheses share, and each one's own.

The shared ones are never copied: their queries are W positions of a sentence, and rows of their own
over what each hypothesis has written. The two parts are one softmax, by their log-normalisers
(kernels.py). Queries are few, so whole scores are small, whatever the backend of everything else.
"""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from transformer.attention import xla
from transformer.attention.kernels import merge
from transformer.attention.masks import Mask


@struct.dataclass
class Part:
    """Keys and values, who may see them, and what is added to scores."""

    k: Any
    v: Any
    mask: Mask
    bias: Any = None


def attend_to_both(q: Float[Array, "B W H K"], shared: Part, own: Part) -> Float[Array, "B W H U"]:
    """One position of W hypotheses over both parts (AIAYN §3.2.1, Eq. 1, over all their keys).

    Args:
        q: queries.
        shared: k [B, S, G, K] and v [B, S, G, U]; the mask's queries are [B, W].
        own: k [B, W, L, G, K] and v [B, W, L, G, U]; the mask's rows are B · W, of one query each.
    """
    B, W, H, K = q.shape
    o, lse = xla.part(q, shared.k, shared.v, shared.mask, shared.bias)
    k, v = (leaf.reshape(B * W, *leaf.shape[2:]) for leaf in (own.k, own.v))
    own_o, own_lse = xla.part(q.reshape(B * W, 1, H, K), k, v, own.mask, own.bias)
    own_lse_BHW = jnp.swapaxes(own_lse.reshape(B, W, H), 1, 2)
    out_BWHU, _ = merge(o, lse, own_o.reshape(o.shape), own_lse_BHW)
    return out_BWHU.astype(q.dtype)
