"""Where a token stands: functions of positions, so that any length and packed rows are served."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.config import ModelConfig
from transformer.sharding import constrain, parameter

SIDES = ("source", "target")


def sinusoidal(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """Sines at even indices and cosines at odd ones (AIAYN §3.5), float32.

    Wavelengths rise geometrically from 2π to 10000·2π: PE(p, 2i) = sin(p / 10000^(2i/D)).
    """
    angles_BTE = angles(positions, width, 10_000.0)
    pairs_BTE2 = jnp.stack([jnp.sin(angles_BTE), jnp.cos(angles_BTE)], axis=-1)
    return pairs_BTE2.reshape(*positions.shape, width)


def sinusoidal_halves(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """The same sines, then the same cosines: the order in which other systems store them."""
    angles_BTE = angles(positions, width, 10_000.0)
    return jnp.concatenate([jnp.sin(angles_BTE), jnp.cos(angles_BTE)], axis=-1)


def angles(positions: Int[Array, "B T"], width: int, base: float) -> Float[Array, "B T E"]:
    """Position p times base^(-2i/width), for i below half of the width E = width / 2; float32."""
    frequencies_E = jnp.power(base, -jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    return positions[:, :, None].astype(jnp.float32) * frequencies_E[None, None]


class Positions(nn.Module):
    """What `model.positions` says, for a model's two sides: source (encoder), target (decoder)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        if c.positions.scheme == "learned":
            init, shape = nn.initializers.normal(c.d_model**-0.5), (c.positions.length, c.d_model)
            self.tables = {
                side: parameter(self, side, init, (None, "embed"), shape) for side in SIDES
            }

    def add(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B T"], side: str
    ) -> Float[Array, "B T D"]:
        """Embeddings with their positions: what a side's first layer reads."""
        match self.config.positions.scheme:
            case "sinusoidal":
                added_BTD = sinusoidal(positions, self.config.d_model)
            case "sinusoidal_halves":
                added_BTD = sinusoidal_halves(positions, self.config.d_model)
            case "learned":
                table_PD = constrain(self.tables[side].astype(x.dtype), None, None)
                added_BTD = jnp.take(table_PD, positions, axis=0, mode="clip")
            case _:
                return x
        return x + added_BTD.astype(x.dtype)
