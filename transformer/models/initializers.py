"""Initial values by name, and how they and their multipliers follow a model's width and depth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from transformer.config import ModelConfig
from transformer.sharding import Axes, parameter

Axis = int | tuple[int, ...]

NORMAL = 0.02  # standard deviation; GPT's and BERT's
SCALED: dict[str, tuple[float, Any, Any]] = {  # scale, mode, distribution of `variance_scaling`
    "xavier_uniform": (1.0, "fan_avg", "uniform"),  # Glorot and Bengio 2010
    "xavier_normal": (1.0, "fan_avg", "truncated_normal"),
    "lecun_normal": (1.0, "fan_in", "truncated_normal"),  # LeCun et al. 1998
    "he_normal": (2.0, "fan_in", "truncated_normal"),  # He et al. 2015
}


def xavier(in_axis: Axis, out_axis: Axis) -> Callable:
    """Uniform, variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    return nn.initializers.variance_scaling(
        1.0, "fan_avg", "uniform", in_axis=in_axis, out_axis=out_axis
    )


@dataclass(frozen=True)
class Depth:
    """What the depth of a stack means for each of its layers.

    Attributes:
        residual: multiplies what a sub-layer's output is added to.
        inner: multiplies initial values, outputs' and feed-forward weights.
        output: multiplies the initial weights of each sub-layer's last product, beside `inner`.
    """

    residual: float = 1.0
    inner: float = 1.0
    output: float = 1.0

    @classmethod
    def of(cls, config: ModelConfig, side: str) -> "Depth":
        """The depth of a model's `source` (encoder) or `target` (decoder) stack.

        DeepNorm's α and β (Wang et al. 2022, Figure 2, each for its architecture), GPT-2's
        1/√(residual layers) (Radford et al. 2019, §2.3).
        """
        N, M = config.encoder_layers, config.decoder_layers
        alone = config.family in ("encoder", "decoder")  # no other stack
        residual = inner = 1.0
        if config.norm == "deepnorm":
            if alone:
                L = N if side == "source" else M
                residual, inner = (2 * L) ** 0.25, (8 * L) ** -0.25
            elif side == "source":
                residual, inner = 0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (-1 / 16)
            else:
                residual, inner = (3 * M) ** 0.25, (12 * M) ** -0.25
        sublayers = 2 * N if side == "source" else (2 if alone else 3) * M
        output = sublayers**-0.5 if config.initializer == "gpt2" else 1.0
        return cls(residual, inner, output)


def width_ratio(config: ModelConfig) -> float:
    """How many times wider than the model whose learning rates it takes over (μP); else 1."""
    return config.d_model / config.base_d_model if config.width_scaling == "mup" else 1.0


def initializer(config: ModelConfig, in_axis: Axis, out_axis: Axis, gain: float) -> Callable:
    """What `model.initializer` names, its standard deviation times `gain`."""
    if config.initializer in SCALED:
        scale, mode, distribution = SCALED[config.initializer]
        return nn.initializers.variance_scaling(
            scale * gain**2, mode, distribution, in_axis=in_axis, out_axis=out_axis
        )
    # μP has a hidden matrix's variance fall with its width, as those above do by themselves.
    return nn.initializers.normal(NORMAL * gain * width_ratio(config) ** -0.5)


def weight(
    module: nn.Module,
    name: str,
    config: ModelConfig,
    axes: Axes,
    shape: tuple[int, ...],
    *,
    fan_in: Axis,
    fan_out: Axis,
    gain: float = 1.0,
) -> Any:
    """A hidden layer's matrix, float32: a parameter, over the model's width ratio.

    μP gives such a matrix Adam's learning rate over the ratio r (Yang et al. 2022, Table 8). An
    update whose size does not depend on the gradient's has the same effect on W = w / r, where w
    starts r times as large: so no optimizer needs to know of it.
    """
    ratio = width_ratio(config)
    init = initializer(config, fan_in, fan_out, gain * ratio)
    w = parameter(module, name, init, axes, shape)
    return w if ratio == 1.0 else w / ratio


def embedding_width(config: ModelConfig, width: int) -> int:
    """Whose square root embeddings start and are multiplied by: μP's does not grow."""
    return config.base_d_model if config.width_scaling == "mup" else width


def embedding_initializer(config: ModelConfig, width: int) -> Callable:
    """Initializes embeddings and positions: variance 1 / width, or what the name says."""
    std = embedding_width(config, width) ** -0.5
    return nn.initializers.normal(std if config.initializer in SCALED else NORMAL)
