"""What surrounds a layer's functions: residual connections, layer norms, dropout, and their order.

Post-norm, pre-norm and their kin, parallel sub-layers, and layer drop (stochastic depth).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from transformer.config import ModelConfig
from transformer.models.dropout import Dropout, dropout_mask
from transformer.sharding import constrain, parameter

Function = Callable[[Array], Array]


class Norm(nn.Module):
    """Normalises the last axis in float32, then applies a learned scale.

    `layer_norm` (Ba et al. 2016): mean 0 and variance 1, then scale and bias. `rms_norm` (RMSNorm,
    Zhang and Sennrich 2019): mean square 1, then scale.
    """

    config: ModelConfig
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        def learned(name: str, init: Callable) -> Float[Array, "*ones D"]:
            leaf_D = parameter(self, name, init, (self.axis,), x.shape[-1:])
            return leaf_D.reshape((1,) * (x.ndim - 1) + (-1,))

        scale = learned("scale", nn.initializers.ones)
        x32, is_layer_norm = x.astype(jnp.float32), self.config.norm_function == "layer_norm"
        if is_layer_norm:
            x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        normal = x32 * jax.lax.rsqrt(mean_square + self.config.norm_epsilon) * scale
        if is_layer_norm:
            normal = normal + learned("bias", nn.initializers.zeros)
        return normal.astype(x.dtype)


def needs_final_norm(config: ModelConfig) -> bool:
    """Whether a stack ends with a norm of its own: a pre-norm layer's output is not normalised."""
    return config.norm in ("pre", "sandwich")


class Residual(nn.Module):
    """A residual connection around a sub-layer's function f, with its dropout and norm.

    post      LayerNorm(x + Dropout(f(x)))              AIAYN §3.1
    deepnorm  LayerNorm(α x + Dropout(f(x)))            Wang et al. 2022, §3
    pre       x + Dropout(f(LayerNorm(x)))              Xiong et al. 2020
    sandwich  x + Dropout(LayerNorm(f(LayerNorm(x))))   Ding et al. 2021; "peri": Kim et al. 2025

    What f reads is constrained as such, apart from the x of the residual connection: gradients by
    it, of all products that read it (queries, keys and values; both of a gated network's), are
    then added before they are summed over devices.
    """

    config: ModelConfig
    alpha: float

    def setup(self) -> None:
        self.norm = Norm(self.config)
        if self.config.norm == "sandwich":
            self.output_norm = Norm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def __call__(self, x: Float[Array, "B T D"], f: Function) -> Float[Array, "B T D"]:
        placed = lambda array: constrain(array, "batch", "length", "hidden")  # noqa: E731
        match self.config.norm:
            case "pre":
                x = x + self.dropout(f(placed(self.norm(x))))
            case "sandwich":
                x = x + self.dropout(self.output_norm(f(placed(self.norm(x)))))
            case _:
                scaled = x if self.alpha == 1.0 else x * self.alpha
                x = self.norm(scaled + self.dropout(f(placed(x))))
        return placed(x)


def apply_sublayers(
    config: ModelConfig, x: Float[Array, "B T D"], sublayers: Sequence[tuple[Residual, Function]]
) -> Float[Array, "B T D"]:
    """Applies a layer's functions, each in its residual connection, one after another.

    `parallel` (Wang and Komatsuzaki 2021): all read what the first reads, in one residual
    connection, and their outputs are summed.
    """
    if config.sublayers == "parallel":
        first, _ = sublayers[0]
        return first(x, lambda x_BTD: sum(f(x_BTD) for _, f in sublayers))  # pyright: ignore
    for residual, f in sublayers:
        x = residual(x, f)
    return x


def layer_drop(
    layer: nn.Module, rate: float, x_in: Float[Array, "B T D"], x_out: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """Stochastic depth: the layer's output, or its input where the layer is dropped.

    LayerDrop (Fan et al. 2020). One draw a layer and call, where a call brings a dropout key;
    nothing is scaled.
    """
    keep = dropout_mask(layer, rate, ())
    return x_out if keep is None else jnp.where(keep, x_out, x_in)
