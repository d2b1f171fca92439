"""Where a token stands: functions of positions, so that any length and packed rows are served.

Added to embeddings (sinusoids, a learned table), turning queries and keys (rotary), or told to
self-attention as a bias (relative.py). Cross-attention is told nothing of positions.
"""

from typing import Any, Self

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention import Mask
from transformer.config import ModelConfig
from transformer.models.initializers import embedding_initializer
from transformer.models.relative import Alibi, T5Buckets, numbered
from transformer.sharding import constrain, parameter

SIDES = ("source", "target")  # encoder and decoder


def sinusoidal(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """Sines at even indices and cosines at odd ones (AIAYN §3.5), float32.

    Wavelengths rise geometrically from 2π to 10000·2π: PE(p, 2i) = sin(p / 10000^(2i/D)).
    """
    angles_BTE = angles(positions, width, 10_000.0)
    pairs_BTE2 = jnp.stack([jnp.sin(angles_BTE), jnp.cos(angles_BTE)], axis=-1)
    return pairs_BTE2.reshape(*positions.shape, width)


def sinusoidal_halves(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """Sines, then cosines, of the paper's wavelengths: the order in which Marian stores them.

    fairseq and tensor2tensor have halves, too, of other wavelengths: 10000^(-i / (D/2 - 1)).
    """
    angles_BTE = angles(positions, width, 10_000.0)
    return jnp.concatenate([jnp.sin(angles_BTE), jnp.cos(angles_BTE)], axis=-1)


def angles(positions: Int[Array, "B T"], width: int, base: float) -> Float[Array, "B T E"]:
    """Position p times base^(-2i/width), for i below half of the width, E of them; float32."""
    frequencies_E = jnp.power(base, -jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    return positions[:, :, None].astype(jnp.float32) * frequencies_E[None, None]


@struct.dataclass
class Rotation:
    """Turns pairs (2i, 2i + 1) of a head by position times base^(-2i/K) (Su et al. 2021, Eq. 15).

    The product of a turned query and a turned key depends on how far apart they are alone.
    """

    angles: Any  # float32 [B, T, K / 2]

    def __call__(self, x: Float[Array, "B T H K"]) -> Float[Array, "B T H K"]:
        pairs_BTHE2 = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
        a_BTHE, b_BTHE = pairs_BTHE2[..., 0], pairs_BTHE2[..., 1]
        sin, cos = jnp.sin(self.angles)[:, :, None], jnp.cos(self.angles)[:, :, None]
        turned = jnp.stack([a_BTHE * cos - b_BTHE * sin, a_BTHE * sin + b_BTHE * cos], axis=-1)
        return turned.reshape(x.shape).astype(x.dtype)


@struct.dataclass
class Relations:
    """Who may attend to whom, and what attention is told of where they stand."""

    mask: Mask
    bias: Any = None
    rotation: Rotation | None = None


@struct.dataclass
class Seen:
    """Which keys hypotheses see at one position of decoding, and where they and the keys stand."""

    allowed: Any  # bool [B, W, S]; [B, 1, S] where all see the same
    q_positions: Any  # int32 [B, W]
    k_positions: Any  # int32 [B, S]
    bias: Any = None

    @classmethod
    def everywhere(
        cls, segments: Int[Array, "B S"], stand: Int[Array, "B W"], bias: Any = None
    ) -> Self:
        """A sentence a row, all of it but padding."""
        places_BS = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
        return cls((segments > 0)[:, None], stand, places_BS, bias)


class Positions(nn.Module):
    """What `model.positions` says, for a model's sides: source (encoder), target (decoder)."""

    config: ModelConfig
    sides: tuple[str, ...] = SIDES

    def setup(self) -> None:
        c = self.config
        scheme, self.tables = c.positions.scheme, {}
        if scheme == "learned":
            init, shape = embedding_initializer(c, c.d_model), (c.positions.length, c.d_model)
            self.tables = {
                side: parameter(self, side, init, (None, "embed"), shape) for side in self.sides
            }
        if scheme == "t5":
            init, shape = nn.initializers.normal(1.0), (c.positions.t5_buckets, c.heads)
            self.tables = {
                side: parameter(self, side, init, (None, "heads"), shape) for side in self.sides
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

    def within(
        self, segments: Int[Array, "B T"], positions: Int[Array, "B T"], side: str
    ) -> Relations:
        """Self-attention over a side's whole rows; the target's is causal."""
        numbers = numbered(*positions.shape) if self._queries_are_numbered else positions
        mask = Mask.within(segments, numbers, causal=side == "target")
        return Relations(mask, self.bias(side), self.rotation(positions))

    @property
    def _queries_are_numbered(self) -> bool:
        return self.config.positions.scheme == "shaw"

    def bias(self, side: str) -> Any:
        """What self-attention adds to scores; Shaw's is each layer's own."""
        p = self.config.positions
        if p.scheme == "alibi":
            return Alibi(self.config.heads)
        if p.scheme == "t5":
            return T5Buckets(self.tables[side], p.t5_max_distance, side == "source")
        return None

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation | None:
        """What turns the queries and keys of self-attention that stand there."""
        if self.config.positions.scheme != "rotary":
            return None
        return Rotation(angles(positions, self.config.d_k, self.config.positions.rotary_base))
