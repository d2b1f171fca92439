"""cuDNN's fused attention, by way of `jax.nn`: NVIDIA GPUs, 16-bit, no scores in memory.

The library knows lengths and causality but not segments, and gives a query that sees no key the
mean of the values. So the mask goes to it as a dense bias, and such queries are zeroed here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.attention.masks import Mask


def unsupported(q: Any, k: Any, v: Any, mask: Mask, bias: Any, dropout: Any) -> str | None:
    """The library's limits: check_is_flash_attention in jax 0.10's cuDNN wrapper."""
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN: 'Q must be fp16/bf16', got {q.dtype}"
    K, U = q.shape[-1], v.shape[-1]
    if K != U:
        return f"jax.nn.dot_product_attention takes one head size, got d_k = {K} and d_v = {U}"
    if K % 8 or K > 128:
        return f"cuDNN: 'the head dim must be <= 128 and a multiple of 8', got {K}"
    if dropout is not None:
        return "jax.nn.dot_product_attention has no dropout"
    if bias is not None and jax.tree.leaves(bias):
        return "a learned bias's gradient through cuDNN is not tested here"
    return None


def attend(
    q: Array, k: Array, v: Array, mask: Mask, bias: Any = None, dropout: Any = None
) -> Array:
    """[B, T, H, K], [B, S, G, K], [B, S, G, U] → [B, T, H, U]."""
    T, S = q.shape[1], k.shape[1]
    allowed_BTS = mask.dense()
    bias_BHTS = None
    if bias is not None:
        bias_BHTS = bias(mask.q_positions, mask.k_positions).astype(q.dtype)
        bias_BHTS = jnp.broadcast_to(bias_BHTS, (bias_BHTS.shape[0], q.shape[2], T, S))
        bias_BHTS = _even(_even(bias_BHTS, 2), 3)
    q, k, v = (_even(x, 1) for x in (q, k, v))  # what the backward pass asks for beside a bias
    out_BTHU = jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=bias_BHTS,
        mask=_even(_even(allowed_BTS, 1), 2)[:, None],
        implementation="cudnn",
    )
    return jnp.where(allowed_BTS.any(-1)[:, :, None, None], out_BTHU[:, :T], 0)


def _even(x: Array, axis: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, x.shape[axis] % 2)
    return jnp.pad(x, widths) if widths[axis][1] else x
