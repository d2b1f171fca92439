"""The parts of a Transformer layer: projections, attention, feed-forward, residual and norm.

Projections are parameters and an einsum: every parameter names its logical axes (`embed`, `heads`,
`mlp` ...), every activation is constrained by its own, and `sharding` decides where they live.
Parameters are float32; computation is in the configuration's dtype.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from transformer.attention import Mask, Split, attend, attention_weights
from transformer.config import ModelConfig
from transformer.sharding import Layout, constrain, current, parameter

Axis = int | tuple[int, ...]


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """What products are computed in; `auto` is bfloat16 on hardware that multiplies it."""
    if config.dtype == "auto":
        return jnp.dtype(jnp.float32 if current().platform == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.dtype)


def xavier(in_axis: Axis, out_axis: Axis) -> Callable:
    """Uniform, variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    return nn.initializers.variance_scaling(
        1.0, "fan_avg", "uniform", in_axis=in_axis, out_axis=out_axis
    )


class Embedding(nn.Module):
    """Words to vectors and vectors to scores of words.

    Tied three ways, source, target and output projection share one table (AIAYN §3.4); two ways,
    the source has its own; not tied, each has (the output's as wide as `output_width`).
    """

    config: ModelConfig
    output_width: int

    def setup(self) -> None:
        tied, D = self.config.tied, self.config.d_model
        self.table = self._table("table", D)
        self.source_table = self.table if tied == "three_way" else self._table("source_table", D)
        self.output_table = self.table
        if tied == "none":
            self.output_table = self._table("output_table", self.output_width)

    def _table(self, name: str, width: int) -> Float[Array, "V D"]:
        init = nn.initializers.normal(width**-0.5)
        return parameter(self, name, init, ("vocab", "embed"), (self.config.vocab_size, width))

    def _gathered(self, table: Float[Array, "V D"]) -> Float[Array, "V D"]:
        # Whole along the width before either use: a lookup in a table split both ways would make
        # the partitioner copy it to every device.
        return constrain(table.astype(compute_dtype(self.config)), "vocab", None)

    def _look_up(self, table: Array, ids: Array) -> Array:
        x_BTD = jnp.take(self._gathered(table), ids, axis=0)
        return constrain(x_BTD * self.config.d_model**0.5, "batch", "length", "hidden")

    def source(self, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Embeddings times √D (§3.4)."""
        return self._look_up(self.source_table, ids)

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """The target's, likewise."""
        return self._look_up(self.table, ids)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The output projection, accumulated and returned in float32."""
        table_VD = self._gathered(self.output_table)
        logits_BTV = jnp.einsum(
            "BTD,VD->BTV",
            hidden.astype(table_VD.dtype),
            table_VD,
            preferred_element_type=jnp.float32,
        )
        return constrain(logits_BTV, "batch", "length", "vocab")


def attention_split(layout: Layout) -> Split:
    """A layout in attention's terms."""
    return Split(layout.mesh, *(layout.mesh_axes(name) for name in ("batch", "length", "heads")))


class MultiHeadAttention(nn.Module):
    """Attention in H subspaces at once (AIAYN §3.2.2), without biases.

    Keys and values are a call of their own, so that decoding computes those of the memory once and
    those of each new token as it comes.
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        D, H, K, U = c.d_model, c.heads, c.d_k, c.d_v
        into, out_of = xavier(0, (1, 2)), xavier((0, 1), 2)
        axes = ("embed", "heads", "head_size")
        self.query = parameter(self, "query", into, axes, (D, H, K))
        self.key = parameter(self, "key", into, axes, (D, H, K))
        self.value = parameter(self, "value", into, axes, (D, H, U))
        self.output = parameter(self, "output", out_of, (*axes[1:], axes[0]), (H, U, D))

    def _heads(self, x_BTD: Array, kernel_DHK: Array) -> Array:
        heads_BTHK = jnp.einsum("BTD,DHK->BTHK", x_BTD, kernel_DHK.astype(x_BTD.dtype))
        return constrain(heads_BTHK, "batch", "length", "heads", "head_size")

    def keys_values(
        self, x: Float[Array, "B S D"]
    ) -> tuple[Float[Array, "B S H K"], Float[Array, "B S H U"]]:
        return self._heads(x, self.key), self._heads(x, self.value)

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H K"]:
        return self._heads(x, self.query)

    def __call__(
        self,
        q: Float[Array, "B T H K"],
        k: Float[Array, "B S H K"],
        v: Float[Array, "B S H U"],
        mask: Mask,
    ) -> Float[Array, "B T D"]:
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow("attention", "weights", attention_weights(q, k, mask=mask))
        backend, split = self.config.attention.backend, attention_split(current())
        out_BTHU = attend(q, k, v, mask=mask, backend=backend, split=split)
        return jnp.einsum("BTHU,HUD->BTD", out_BTHU, self.output.astype(out_BTHU.dtype))


class FeedForward(nn.Module):
    """max(0, x W₁ + b₁) W₂ + b₂, the same at every position (AIAYN §3.3, Eq. 2)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        D, F = self.config.d_model, self.config.d_ff
        zeros = nn.initializers.zeros
        up_DF = parameter(self, "up", xavier(0, 1), ("embed", "mlp"), (D, F)).astype(x.dtype)
        up_bias_F = parameter(self, "up_bias", zeros, ("mlp",), (F,)).astype(x.dtype)
        down_FD = parameter(self, "down", xavier(0, 1), ("mlp", "embed"), (F, D)).astype(x.dtype)
        down_bias_D = parameter(self, "down_bias", zeros, ("embed",), (D,)).astype(x.dtype)
        h_BTF = constrain(jnp.einsum("BTD,DF->BTF", x, up_DF), "batch", "length", "mlp")
        h_BTF = jax.nn.relu(h_BTF + up_bias_F[None, None])
        return jnp.einsum("BTF,FD->BTD", h_BTF, down_FD) + down_bias_D[None, None]


class LayerNorm(nn.Module):
    """Brings each position's width to mean 0 and variance 1, in float32; then scale and bias."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        D = self.config.d_model
        scale_D = parameter(self, "scale", nn.initializers.ones, ("embed",), (D,))
        bias_D = parameter(self, "bias", nn.initializers.zeros, ("embed",), (D,))
        x32_BTD = x.astype(jnp.float32)
        centred_BTD = x32_BTD - jnp.mean(x32_BTD, axis=-1, keepdims=True)
        variance_BT1 = jnp.mean(jnp.square(centred_BTD), axis=-1, keepdims=True)
        normal_BTD = centred_BTD * jax.lax.rsqrt(variance_BT1 + self.config.norm_epsilon)
        return (normal_BTD * scale_D[None, None] + bias_D[None, None]).astype(x.dtype)


class Dropout(nn.Module):
    """Zeroes activations at random where the call brings a dropout key, and scales the rest up."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        keep = kept(self, self.rate, x.shape)
        return x if keep is None else jnp.where(keep, x * (1.0 / (1.0 - self.rate)), 0.0)


def kept(module: nn.Module, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."] | None:
    """Which activations dropout keeps; None where a call brings no dropout key."""
    if rate == 0.0 or not module.has_rng("dropout"):
        return None
    keep = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - rate, shape)
    # Fused into what uses it, the generator makes a long sequence's step take three times as
    # long to compile for TPUs.
    return jax.lax.optimization_barrier(keep)


class Sublayer(nn.Module):
    """A residual connection around a function, with its dropout and norm.

    `post` (AIAYN §3.1): LayerNorm(x + Dropout(f(x))). `pre`: x + Dropout(f(LayerNorm(x))).
    """

    config: ModelConfig

    def setup(self) -> None:
        self.norm = LayerNorm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def __call__(
        self, x: Float[Array, "B T D"], function: Callable[[Array], Array]
    ) -> Float[Array, "B T D"]:
        if self.config.norm == "pre":
            x = x + self.dropout(function(self.norm(x)))
        else:
            x = self.norm(x + self.dropout(function(x)))
        return constrain(x, "batch", "length", "hidden")
