"""Positional encodings: functions of positions, so that any length and packed rows are served.

Some are added to embeddings (sinusoids, a learned table), RoPE rotates queries and keys, others are
a bias on the scores of self-attention (position_bias.py). Cross-attention has none.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention import Mask
from transformer.config import ModelConfig
from transformer.models.initializers import embedding_initializer
from transformer.models.transformer.position_bias import Alibi, T5Buckets, numbered
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
    """RoPE: rotates pairs (2i, 2i + 1) of a head by position · base^(-2i/K) (Su et al. 2021).

    Their Eq. 15. The product of a rotated query and a rotated key depends only on their distance.
    """

    angles: Any  # float32 [B, T, K / 2]

    def __call__(self, x: Float[Array, "B T H K"]) -> Float[Array, "B T H K"]:
        pairs_BTHE2 = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
        a_BTHE, b_BTHE = pairs_BTHE2[..., 0], pairs_BTHE2[..., 1]
        sin, cos = jnp.sin(self.angles)[:, :, None], jnp.cos(self.angles)[:, :, None]
        rotated = jnp.stack([a_BTHE * cos - b_BTHE * sin, a_BTHE * sin + b_BTHE * cos], axis=-1)
        return rotated.reshape(x.shape).astype(x.dtype)


@struct.dataclass
class AttentionContext:
    """What a call of attention is given beside queries, keys and values.

    Attributes:
        mask: which keys each query may attend to.
        bias: a function of positions, added to the scores; None where there is none.
        rotation: RoPE of queries and keys; None where there is none.
    """

    mask: Mask
    bias: Any = None
    rotation: Rotation | None = None


class Positions(nn.Module):
    """The positional encoding of `model.positions`, for source (encoder) and target (decoder)."""

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
        """Adds the encoding to embeddings, where the scheme is one that adds."""
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

    def self_attention_context(
        self, segments: Int[Array, "B T"], positions: Int[Array, "B T"], side: str
    ) -> AttentionContext:
        """Makes the mask, bias and rotation of self-attention over whole rows.

        The target's mask is causal.
        """
        is_shaw = self.config.positions.scheme == "shaw"  # whose bias tells queries by their number
        mask_positions = numbered(*positions.shape) if is_shaw else positions
        mask = Mask.self_attention(segments, mask_positions, causal=side == "target")
        return AttentionContext(mask, self.bias(side), self.rotation(positions))

    def bias(self, side: str) -> Any:
        """The bias on self-attention's scores that all layers share; Shaw's is each layer's own."""
        p = self.config.positions
        if p.scheme == "alibi":
            return Alibi(self.config.heads)
        if p.scheme == "t5":
            return T5Buckets(self.tables[side], p.t5_max_distance, side == "source")
        return None

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation | None:
        """RoPE for queries and keys at these positions; None with another scheme."""
        if self.config.positions.scheme != "rotary":
            return None
        return Rotation(angles(positions, self.config.d_k, self.config.positions.rotary_base))
