"""A layer's two functions: multi-head attention, and the position-wise feed-forward network.

Projections are parameters and an einsum: every parameter names its logical axes (`embed`, `heads`,
`mlp` ...), every activation is constrained by its own, and `sharding` decides where they live.
Parameters are float32; computation is in the configuration's dtype.
"""

import functools
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from transformer import attention
from transformer.attention import Split, attend, attention_weights
from transformer.config import ModelConfig
from transformer.models.initializers import Depth, weight, xavier
from transformer.models.products import product
from transformer.models.transformer.kv_cache import (
    KVCache,
    KVSource,
    StepContext,
    VisibleKeys,
    attend_cached,
)
from transformer.models.transformer.position_bias import ShawKeys
from transformer.models.transformer.positions import AttentionContext, Rotation
from transformer.models.transformer.residual import Norm
from transformer.sharding import constrain, current, parameter

ZEROS = nn.initializers.zeros


class MultiHeadAttention(nn.Module):
    """Attention in H subspaces at once (AIAYN §3.2.2).

    G key/value heads serve H query heads in equal groups: one for all (multi-query attention,
    Shazeer 2019), or several (grouped-query attention, Ainslie et al. 2023). Projecting keys and
    values is a call of its own, so that decoding projects the memory once and each new token as it
    comes.
    """

    config: ModelConfig
    depth: Depth
    is_self_attention: bool  # queries and keys are of one sequence

    def setup(self) -> None:
        c, inner = self.config, self.depth.inner
        D, H, G, K, U = c.d_model, c.heads, c.key_value_heads, c.d_k, c.d_v
        into = functools.partial(weight, self, config=c, fan_in=0, fan_out=(1, 2))
        q_axes, k_axes = (("embed", heads, "head_size") for heads in ("heads", "kv_heads"))
        self.query = into("query", axes=q_axes, shape=(D, H, K))
        self.key = into("key", axes=k_axes, shape=(D, G, K))
        self.value = into("value", axes=k_axes, shape=(D, G, U), gain=inner)
        axes, gain = ("heads", "head_size", "embed"), inner * self.depth.output
        self.output = weight(
            self, "output", c, axes, (H, U, D), fan_in=(0, 1), fan_out=2, gain=gain
        )
        if c.attention_bias:
            self.query_bias = parameter(self, "query_bias", ZEROS, q_axes[1:], (H, K))
            self.key_bias = parameter(self, "key_bias", ZEROS, k_axes[1:], (G, K))
            self.value_bias = parameter(self, "value_bias", ZEROS, k_axes[1:], (G, U))
            self.output_bias = parameter(self, "output_bias", ZEROS, ("embed",), (D,))
        if c.qk_norm:
            self.query_norm, self.key_norm = Norm(c, "head_size"), Norm(c, "head_size")
        if self.is_self_attention and c.positions.scheme == "shaw":
            shape = (2 * c.positions.shaw_clip + 1, K)
            self.distance = parameter(self, "distance", xavier(0, 1), (None, "head_size"), shape)

    def __call__(
        self, x: Float[Array, "B T D"], context: AttentionContext
    ) -> Float[Array, "B T D"]:
        """Self-attention: queries, keys and values are all of x."""
        q_BTHK = self.queries(x, context.rotation)
        return self.attend(q_BTHK, *self.keys_values(x, context.rotation), context)

    def _heads(self, x_BTD: Array, kernel_DHK: Any, bias_HK: Array | None, axis: str) -> Array:
        heads_BTHK = product("BTD,DHK->BTHK", x_BTD, kernel_DHK)
        if bias_HK is not None:
            heads_BTHK = heads_BTHK + bias_HK.astype(x_BTD.dtype)[None, None]
        return constrain(heads_BTHK, "batch", "length", axis, "head_size")

    def keys_values(
        self, x: Float[Array, "B S D"], rotation: Rotation | None = None
    ) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G U"]]:
        """Projects x to the keys and values of each head."""
        c = self.config
        key_bias, value_bias = (
            (self.key_bias, self.value_bias) if c.attention_bias else (None, None)
        )
        k_BSGK = self._heads(x, self.key, key_bias, "kv_heads")
        k_BSGK = self.key_norm(k_BSGK) if c.qk_norm else k_BSGK
        k_BSGK = rotation(k_BSGK) if rotation else k_BSGK
        return k_BSGK, self._heads(x, self.value, value_bias, "kv_heads")

    def queries(
        self, x: Float[Array, "B T D"], rotation: Rotation | None = None
    ) -> Float[Array, "B T H K"]:
        """Projects x to the queries of each head."""
        c = self.config
        q_BTHK = self._heads(x, self.query, self.query_bias if c.attention_bias else None, "heads")
        q_BTHK = self.query_norm(q_BTHK) if c.qk_norm else q_BTHK
        if c.width_scaling == "mup":  # scores fall with 1/K, not 1/√K (Yang et al. 2022, Table 8)
            q_BTHK = q_BTHK * (c.base_d_k / c.d_k) ** 0.5
        return rotation(q_BTHK) if rotation else q_BTHK

    def attend(
        self,
        q: Float[Array, "B T H K"],
        k: Float[Array, "B S G K"],
        v: Float[Array, "B S G U"],
        context: AttentionContext,
    ) -> Float[Array, "B T D"]:
        """Attends in every head, and projects their outputs back to the model's width."""
        c, mask, bias = self.config, context.mask, context.bias
        if self.is_self_attention and c.positions.scheme == "shaw":
            bias = ShawKeys.of(q, self.distance, k.shape[1])
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow("attention", "weights", attention_weights(q, k, mask=mask, bias=bias))
        dropout = None
        if c.attention_dropout and self.has_rng("dropout"):
            dropout = attention.Dropout(self.make_rng("dropout"), c.attention_dropout)
        backend, split = c.attention.backend, Split.of(current())
        out_BTHU = attend(
            q, k, v, mask=mask, bias=bias, dropout=dropout, backend=backend, split=split
        )
        return self._output(out_BTHU)

    def extend(
        self, x: Float[Array, "B W D"], kv: KVCache, context: StepContext
    ) -> tuple[Float[Array, "B W H K"], KVCache]:
        """A new position's queries, and the KV cache with its keys and values written."""
        new = KVCache.of(*self.keys_values(x, context.rotation))
        return self.queries(x, context.rotation), kv.write(new, context.index * x.shape[1])

    def attend_cached(
        self, q: Float[Array, "B W H K"], *sources: tuple[KVCache, VisibleKeys]
    ) -> Float[Array, "B W D"]:
        """Attends from one position of W hypotheses over the cached keys of all sources."""

        def source(kv: KVCache, keys: VisibleKeys) -> KVSource:
            bias = keys.bias
            if self.is_self_attention and self.config.positions.scheme == "shaw":
                bias = ShawKeys.at(q, self.distance)
            scores = None if bias is None else bias(keys.q_positions, keys.k_positions)
            return KVSource(kv, keys.allowed, scores)

        return self._output(attend_cached(q, *(source(*pair) for pair in sources)))

    def _output(self, out_BTHU: Array) -> Float[Array, "B T D"]:
        out_BTD = product("BTHU,HUD->BTD", out_BTHU, self.output)
        if self.config.attention_bias:
            out_BTD = out_BTD + self.output_bias.astype(out_BTD.dtype)[None, None]
        return out_BTD


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),  # Hendrycks and Gimpel 2016
    "silu": jax.nn.silu,  # Elfwing et al. 2018; "swish"
}
GATED = {"geglu": ACTIVATIONS["gelu"], "swiglu": ACTIVATIONS["silu"]}  # Shazeer 2020, Eq. 6


class FeedForward(nn.Module):
    """f(x W₁ + b₁) W₂ + b₂, the same at every position; the paper's f is max(0, ·) (AIAYN §3.3).

    Gated (Shazeer 2020): (f(x V + c) ⊙ (x W₁ + b₁)) W₂ + b₂. Biases can be left out.
    """

    config: ModelConfig
    depth: Depth

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c, inner = self.config, self.depth.inner
        D, F = c.d_model, c.d_ff
        matrix = functools.partial(weight, self, config=c, fan_in=0, fan_out=1)

        def up(name: str) -> Float[Array, "B T F"]:
            up_DF = matrix(name, axes=("embed", "mlp"), shape=(D, F), gain=inner)
            h_BTF = constrain(product("BTD,DF->BTF", x, up_DF), "batch", "length", "mlp")
            if not c.feed_forward_bias:
                return h_BTF
            bias_F = parameter(self, f"{name}_bias", ZEROS, ("mlp",), (F,)).astype(x.dtype)
            return h_BTF + bias_F[None, None]

        if c.feed_forward in GATED:
            h_BTF = GATED[c.feed_forward](up("gate")) * up("up")
        else:
            h_BTF = ACTIVATIONS[c.feed_forward](up("up"))
        gain = inner * self.depth.output
        down_FD = matrix("down", axes=("mlp", "embed"), shape=(F, D), gain=gain)
        out_BTD = product("BTF,FD->BTD", h_BTF, down_FD)
        if not c.feed_forward_bias:
            return out_BTD
        bias_D = parameter(self, "down_bias", ZEROS, ("embed",), (D,)).astype(x.dtype)
        return out_BTD + bias_D[None, None]
