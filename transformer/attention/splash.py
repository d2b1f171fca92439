"""Splash attention: JAX's Pallas kernel for TPUs, as a block kernel. Elsewhere it is interpreted.

The library's kernel takes causality and windows as a function of row indices, segments as data, and
for each pair of blocks whether to visit it; all three come from the mask here, so that a stretch of
a longer sequence, as a ring hands it over, is served like a whole one.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.attention.kernels import Leaves
from transformer.attention.masks import Mask, near

LANES = 128  # lengths of blocks are multiples of this; head sizes need not be
_NOBODY = jnp.iinfo(jnp.int32).min  # a segment that no key is of


@functools.cache
def _library() -> Any:
    """JAX's kernel, imported where it is first called: Pallas takes a tenth of a second."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    return splash_attention_kernel


def unsupported(mask: Mask, bias: Any, dropout: Any) -> str | None:
    """What the library's kernel has no argument for."""
    if bias is not None:
        return "splash takes no additive bias"
    if dropout is not None:
        return "splash has no dropout"
    if mask.by_distance and (mask.q_index is None or mask.k_index is None):
        return "splash compares row indices: queries and keys must be one sequence"
    return None


@dataclasses.dataclass(frozen=True)
class _Near:
    """The mask function; hashable, since it is part of the compiled kernel's key."""

    causal: bool
    window: int | None

    def __call__(self, q_index: Array, k_index: Array) -> Array:
        return near(q_index - k_index, self.causal, self.window)


@dataclasses.dataclass(frozen=True)
class Splash:
    """The kernel (`kernels.Kernel`); blocks of this many positions where the length has them."""

    interpret: bool = False
    block: int = 512

    def forward(
        self, q: Array, k: Array, v: Array, mask: Mask, bias: Any, dropout: Any
    ) -> tuple[Array, Array]:
        T = q.shape[1]
        part = _Part(self, q, k, v, mask)

        def one(q: Array, k: Array, v: Array, segments: Any) -> Any:
            return _library()._splash_attention_forward(
                part.info(), q, k, v, segments, None, save_residuals=True,
                residual_checkpoint_name=None, **part.options,
            )  # fmt: skip

        o, (lse,) = jax.vmap(one)(part.q, part.k, part.v, part.segments)
        seen_BHT = lse > 0.5 * _library().DEFAULT_MASK_VALUE
        o = jnp.where(seen_BHT[..., None], o, 0.0)
        return jnp.swapaxes(o, 1, 2)[:, :T], jnp.where(seen_BHT, lse, -jnp.inf)[:, :, :T]

    def backward(
        self,
        q: Array,
        k: Array,
        v: Array,
        mask: Mask,
        bias: Any,
        dropout: Any,
        o: Array,
        lse: Array,
        do: Array,
    ) -> tuple[Array, Array, Array, Leaves]:
        T, S, K = q.shape[1], k.shape[1], q.shape[-1]
        part = _Part(self, q, k, v, mask)
        lse = jnp.where(jnp.isneginf(lse), 0.0, lse)  # a masked score's exponential is then 0
        lse = jnp.pad(lse, [(0, 0), (0, 0), (0, part.q.shape[2] - T)])
        rows = (part.heads_first(o, part.bq), lse, part.heads_first(do, part.bq))

        def one(q: Array, k: Array, v: Array, segments: Any, o: Array, lse: Array, do: Array):
            di = jnp.sum(o.astype(jnp.float32) * do.astype(jnp.float32), axis=-1)
            common = {k: v for k, v in part.options.items() if k != "block_sizes"}
            arguments = (q, k, v, segments, None, lse, do, di)
            layouts = {f"{x}_layout": _library().QKVLayout.HEAD_DIM_MINOR for x in "qkv"}
            sizes = {"bq": part.bq, "bkv": part.bk, **layouts}
            dq = _library()._splash_attention_bwd_dq(
                *arguments, mask_info=part.info(), **sizes, **common
            )
            _, dk, dv = _library()._splash_attention_bwd_dkv(
                *arguments, mask_info=part.info(by_keys=True), bkv_compute=part.bk,
                use_fused_bwd_kernel=False, **sizes, **common,
            )  # fmt: skip
            return dq, dk, dv

        dq, dk, dv = jax.vmap(one)(part.q, part.k, part.v, part.segments, *rows)
        dq, dk, dv = (jnp.swapaxes(x, 1, 2) for x in (dq, dk, dv))
        return dq[:, :T] * K**-0.5, dk[:, :S], dv[:, :S], []


class _Part:
    """A call in the library's terms: heads before positions, sizes padded, queries scaled."""

    def __init__(self, kernel: Splash, q: Array, k: Array, v: Array, mask: Mask):
        self.bq, self.bk = (_block(x.shape[1], kernel.block) for x in (q, k))
        self.mask = mask
        self.q = self.heads_first(q * q.shape[-1] ** -0.5, self.bq)
        self.k, self.v = (self.heads_first(x, self.bk) for x in (k, v))
        # Padding's segment 0 would see itself: queries get one that no key has.
        q_segments = jnp.where(mask.q_segments == 0, _NOBODY, mask.q_segments)
        self.segments = _library().SegmentIds(
            _pad(q_segments, self.bq, _NOBODY), _pad(mask.k_segments, self.bk, 0)
        )
        self.options = {
            "mask_value": _library().DEFAULT_MASK_VALUE,
            "is_mqa": False,
            "block_sizes": _library().BlockSizes(self.bq, self.bk),
            "mask_function": _Near(mask.is_causal, mask.window) if mask.by_distance else None,
            "attn_logits_soft_cap": None,
            "interpret": kernel.interpret,
        }

    def heads_first(self, x: Array, block: int) -> Array:
        """[B, T, H, K] → [B, H, T', K], T' a multiple of a block."""
        return _pad(jnp.swapaxes(x, 1, 2), block, 0, axis=2)

    def info(self, *, by_keys: bool = False) -> Any:
        """Which blocks to visit: those in which, in some row, some query sees some key.

        A `MaskInfo`; `by_keys`: for the pass that goes from block to block of queries, for each
        of keys.
        """
        seen_ij = self._seen()[None].astype(jnp.int32)
        axis = 1 if by_keys else 2
        # While a block that is not visited goes by, the next one that is may be fetched.
        count = seen_ij.shape[axis]
        number = jax.lax.broadcasted_iota(jnp.int32, seen_ij.shape, axis)
        upcoming = jnp.where(seen_ij > 0, number, count)
        upcoming = jax.lax.cummin(upcoming, axis=axis, reverse=True)
        upcoming = jnp.where(upcoming == count, 0, upcoming)
        q_sequence = None
        if self.mask.by_distance:
            assert self.mask.q_index is not None and self.mask.k_index is not None
            q_sequence = _pad(self.mask.q_index - self.mask.k_index[0], self.bq, 0, axis=0)
        return _library().mask_info_lib.MaskInfo(upcoming, None, seen_ij, None, q_sequence)

    def _seen(self) -> Array:
        """Whether block i of queries sees anything of block j of keys, [i, j]; in any row."""

        def spans(x: Array, block: int) -> tuple[Array, Array]:
            blocks = x.reshape(*x.shape[:-1], -1, block)
            return blocks.min(-1), blocks.max(-1)

        segments = self.segments
        (q_low, q_high), (k_low, k_high) = spans(segments.q, self.bq), spans(segments.kv, self.bk)
        # Padding at a sentence's end is below every segment: the span then reaches down to it,
        # which visits too much and never too little.
        visible = (q_high[:, :, None] >= k_low[:, None]) & (k_high[:, None] >= q_low[:, :, None])
        visible &= (q_high > 0)[:, :, None] & (k_high > 0)[:, None]
        visible = visible.any(0)
        if self.mask.by_distance:
            q_index = _pad(self.mask.q_index, self.bq, 0, axis=0)  # pyright: ignore
            first = self.mask.k_index[0]  # pyright: ignore
            k_first = first + self.bk * jnp.arange(visible.shape[1])
            q_low, q_high = spans(q_index, self.bq)
            if self.mask.is_causal:
                visible &= q_high[:, None] >= k_first[None]
            if self.mask.window is not None:
                visible &= q_low[:, None] - (k_first + self.bk - 1)[None] < self.mask.window
                visible &= k_first[None] - q_high[:, None] < self.mask.window
        return visible


def _block(length: int, most: int) -> int:
    """The largest block, at most `most`, that pads the length no more than a lane would."""
    lanes = -(-length // LANES)
    return max(
        size for size in range(LANES, min(most, lanes * LANES) + 1, LANES)
        if lanes * LANES % size == 0
    )  # fmt: skip


def _pad(x: Array, multiple: int, value: int, axis: int = -1) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths, constant_values=value)
