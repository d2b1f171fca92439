"""What stands around a layer's functions: residual connections, norms, dropout, and their order."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from transformer import rng
from transformer.config import ModelConfig
from transformer.sharding import constrain, parameter

Function = Callable[[Array], Array]


class Norm(nn.Module):
    """Brings the last axis to a common size, in float32; then a learned scale.

    `layer_norm` (Ba et al. 2016): mean 0 and variance 1, then scale and bias. `rms_norm` (Zhang
    and Sennrich 2019): mean square 1, then scale.
    """

    config: ModelConfig
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        def learned(name: str, init: Callable) -> Float[Array, "*ones D"]:
            leaf_D = parameter(self, name, init, (self.axis,), x.shape[-1:])
            return leaf_D.reshape((1,) * (x.ndim - 1) + (-1,))

        scale = learned("scale", nn.initializers.ones)
        x32, centre = x.astype(jnp.float32), self.config.norm_function == "layer_norm"
        if centre:
            x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        normal = x32 * jax.lax.rsqrt(square + self.config.norm_epsilon) * scale
        if centre:
            normal = normal + learned("bias", nn.initializers.zeros)
        return normal.astype(x.dtype)


def norm_is_last(config: ModelConfig) -> bool:
    """Whether what comes out of a stack of layers has never been normed as a whole."""
    return config.norm in ("pre", "sandwich")


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
    keep = rng.bernoulli(module.make_rng("dropout"), 1.0 - rate, shape)
    # Fused into what uses it, the generator makes a long sequence's step take three times as
    # long to compile for TPUs.
    return jax.lax.optimization_barrier(keep)


class Sublayer(nn.Module):
    """A residual connection around a function, with its dropout and norm.

    post      LayerNorm(x + Dropout(f(x)))              AIAYN §3.1
    deepnorm  LayerNorm(α x + Dropout(f(x)))            Wang et al. 2022, §3
    pre       x + Dropout(f(LayerNorm(x)))              Xiong et al. 2020
    sandwich  x + Dropout(LayerNorm(f(LayerNorm(x))))   Ding et al. 2021; "peri": Kim et al. 2025

    What f reads is constrained as such, apart from the x of the residual connection: gradients by
    it, of all products that read it (queries, keys and values; both of a gated network's), are
    then added before they are summed over devices.
    """

    config: ModelConfig
    residual: float  # α

    def setup(self) -> None:
        self.norm = Norm(self.config)
        if self.config.norm == "sandwich":
            self.output_norm = Norm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def __call__(self, x: Float[Array, "B T D"], function: Function) -> Float[Array, "B T D"]:
        placed = lambda array: constrain(array, "batch", "length", "hidden")  # noqa: E731
        match self.config.norm:
            case "pre":
                x = x + self.dropout(function(placed(self.norm(x))))
            case "sandwich":
                x = x + self.dropout(self.output_norm(function(placed(self.norm(x)))))
            case _:
                before = x if self.residual == 1.0 else x * self.residual
                x = self.norm(before + self.dropout(function(placed(x))))
        return placed(x)


def through(
    config: ModelConfig, x: Float[Array, "B T D"], sublayers: Sequence[tuple[Sublayer, Function]]
) -> Float[Array, "B T D"]:
    """A layer's functions, each in its sub-layer, one after another.

    `parallel` (Wang and Komatsuzaki 2021): all read what the first reads, in one sub-layer, and
    their outputs are summed.
    """
    if config.sublayers == "parallel":
        first, _ = sublayers[0]
        return first(x, lambda x_BTD: sum(f(x_BTD) for _, f in sublayers))  # pyright: ignore
    for sublayer, function in sublayers:
        x = sublayer(x, function)
    return x


def unless_dropped(
    layer: nn.Module, rate: float, before: Float[Array, "B T D"], after: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """A layer's output, or its input where the whole layer is dropped (Fan et al. 2020).

    One draw a layer and call, where a call brings a dropout key; nothing is scaled.
    """
    keep = kept(layer, rate, ())
    return after if keep is None else jnp.where(keep, after, before)
