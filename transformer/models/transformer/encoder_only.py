"""An encoder alone: words filled in (Devlin et al. 2019), and whole sequences told apart.

What a target position is predicted from is `model.readout`: the source's same position, or one
vector of the whole source, that of a learned position put before it ("[CLS]", and the class token
of Dosovitskiy et al. 2021) or the mean of all. The target's own tokens are never read.
"""

from typing import Any, Self

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention import unknown_backend
from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models.dropout import Dropout
from transformer.models.embedding import Embedding
from transformer.models.initializers import (
    Depth,
    embedding_initializer,
    embedding_width,
    weight,
)
from transformer.models.seq2seq import Cache, Memory, Seq2Seq
from transformer.models.transformer.layers import EncoderLayer, layer_products, stack
from transformer.models.transformer.positions import Positions, sinusoidal
from transformer.models.transformer.residual import Norm, Residual, needs_final_norm
from transformer.models.transformer.sublayers import FeedForward
from transformer.sharding import constrain, current, parameter


class Patches(nn.Module):
    """Vectors of P tokens, end to end, projected to one position (Dosovitskiy et al. 2021, Eq. 1).

    The paper projects the pixels of a patch. Here each pixel is a token, whose vector is looked up:
    where these vectors are multiples of one, by grey level, it is the paper's E.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], positions: Int[Array, "B S"], segments: Int[Array, "B S"]
    ) -> tuple[Float[Array, "B C D"], Int[Array, "B C"], Int[Array, "B C"]]:
        """C patches, their positions and segments; what a last patch lacks, or pads, is zeros."""
        B, S, D = x.shape
        P = self.config.patch
        filled = lambda x: jnp.pad(x, [(0, 0), (0, -S % P)] + [(0, 0)] * (x.ndim - 2))  # noqa: E731
        x_BSD = filled(jnp.where(segments[..., None] > 0, x, 0.0))
        axes = (None, "embed", "hidden")
        project = weight(self, "kernel", self.config, axes, (P, D, D), fan_in=(0, 1), fan_out=2)
        x_BCPD = x_BSD.reshape(B, -1, P, D)
        x_BCD = jnp.einsum("BCPD,PDE->BCE", x_BCPD, project.astype(x.dtype))
        first_of_each = lambda x: filled(x)[:, ::P]  # noqa: E731
        x_BCD = constrain(x_BCD, "batch", "length", "hidden")
        return x_BCD, first_of_each(positions) // P, first_of_each(segments)


class Readout(nn.Module):
    """What one vector says at each target position: so a label of any length, and then </s>.

    The position's sinusoids are added, and a feed-forward sub-layer follows: a head with one hidden
    layer, as in pre-training by Dosovitskiy et al. (2021, §3.1).
    """

    config: ModelConfig

    def setup(self) -> None:
        self.feed_forward = FeedForward(self.config, Depth())
        self.feed_forward_residual = Residual(self.config, 1.0)
        if needs_final_norm(self.config):
            self.norm = Norm(self.config)

    def __call__(
        self, pooled: Float[Array, "B T D"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        x_BTD = pooled + sinusoidal(positions, self.config.d_model).astype(pooled.dtype)
        x_BTD = self.feed_forward_residual(x_BTD, self.feed_forward)
        return self.norm(x_BTD) if needs_final_norm(self.config) else x_BTD


@struct.dataclass
class EncoderCache(Cache):
    """The encoder's output, [B, S, D], or the source as one vector, [B, 1, D]."""

    hidden: Any

    def reorder(self, parents_BW: Int[Array, "B W"]) -> Self:
        return self

    @property
    def per_source(self) -> Any:
        return self.hidden

    @property
    def per_hypothesis(self) -> Any:
        return ()


class EncoderOnly(Seq2Seq):
    """The encoder of the Transformer, and a readout."""

    @property
    def takes_packed_rows(self) -> bool:
        # There is one class token a row, and a patch may not reach into the next sentence.
        return self.config.readout != "class" and self.config.patch == 1

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        if config.tied == "two_way":
            return (
                "model.family=encoder reads its source alone: model.tied is three_way (the output "
                "has the source's table) or none (its own)"
            )
        if config.patch > 1 and config.readout == "position":
            return (
                f"model.patch={config.patch} makes one position of several tokens, so no target "
                "token has one of its own: set model.readout to class or mean"
            )
        if config.d_model % 2 and config.readout != "position":
            return (
                f"model.d_model is {config.d_model}; model.readout={config.readout} tells target "
                f"positions by sinusoids, which need an even width: take {config.d_model + 1}"
            )
        return unknown_backend(config.attention.backend)

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """As the Transformer's; a sentence's patches and its class token are shared by its tokens.

        A target token costs its readout and its scores.
        """
        c = config
        patches, is_class = -(-length // c.patch), c.readout == "class"
        count = patches + is_class
        attention, feed_forward = layer_products(c, count)
        source = count * c.encoder_layers * (attention + feed_forward)
        if c.patch > 1:
            source += patches * c.patch * c.d_model**2
        target = c.d_model * c.vocab_size
        if c.readout != "position":
            target += feed_forward
        if c.readout == "mean":
            target += count * c.d_model
        return 2.0 * (source / length + target)

    def setup(self) -> None:
        c = self.config
        self.embedding = Embedding(c, c.d_model, one_input=True)
        self.positions = Positions(c, ("source",))
        self.dropout = Dropout(c.dropout)
        self.encoder = stack(EncoderLayer, "source", c, __call__=nn.broadcast)
        if needs_final_norm(c):
            self.encoder_norm = Norm(c)
        if c.patch > 1:
            self.patches = Patches(c)
        if c.readout == "class":
            init = embedding_initializer(c, c.d_model)
            self.class_token = parameter(self, "class_token", init, ("embed",), (c.d_model,))
        if c.readout != "position":
            self.readout = Readout(c)

    def encode(self, source: Source) -> Memory:
        x_BSD = self.embedding.source(source.ids)
        positions, segments = source.positions, source.segments
        if self.config.patch > 1:
            x_BSD, positions, segments = self.patches(x_BSD, positions, segments)
        if self.config.readout == "class":
            x_BSD, positions, segments = self._with_class(x_BSD, positions, segments)
        context = self.positions.self_attention_context(segments, positions, "source")
        x_BSD = self.dropout(self.positions.add(x_BSD, positions, "source"))
        x_BSD, _ = self.encoder(x_BSD, context)
        if needs_final_norm(self.config):
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(x_BSD, positions, segments)

    def _with_class(
        self, x_BSD: Array, positions_BS: Array, segments_BS: Array
    ) -> tuple[Array, Array, Array]:
        """The class token at position 0, the others behind it."""
        c = self.config
        if current().split("length") > 1:
            raise UserError(
                "mesh.sequence splits the length, which model.readout=class makes odd by one: set "
                "mesh.sequence=1, or model.readout=mean"
            )
        token_D = self.class_token.astype(x_BSD.dtype)
        if c.scale_embeddings:
            token_D = token_D * embedding_width(c, c.d_model) ** 0.5
        token_B1D = jnp.broadcast_to(token_D[None, None], (len(x_BSD), 1, c.d_model))
        first_B1 = jnp.zeros_like(positions_BS[:, :1])
        before = lambda one, others: jnp.concatenate([one, others], axis=1)  # noqa: E731
        return (
            before(token_B1D, x_BSD),
            before(first_B1, positions_BS + 1),
            before(segments_BS[:, :1], segments_BS),
        )

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        """The readout of each position; the target's ids are not looked at."""
        segments_BT1, segments_B1S = target.segments[:, :, None], memory.segments[:, None]
        same_BTS = (segments_BT1 == segments_B1S) & (segments_BT1 > 0)
        if self.config.readout == "position":
            first_BT = jnp.argmax(same_BTS, axis=2).astype(jnp.int32)
            counts_BT = jnp.sum(same_BTS, axis=2, dtype=jnp.int32)
            return _at(memory.hidden, first_BT, target.positions, counts_BT)
        return self.readout(self._pooled(memory.hidden, same_BTS), target.positions)

    def _pooled(self, hidden_BSD: Array, same_BTS: Array) -> Float[Array, "B T D"]:
        """The source as one vector, for each target position."""
        if self.config.readout == "class":
            B, T, _ = same_BTS.shape
            return jnp.broadcast_to(hidden_BSD[:, :1], (B, T, hidden_BSD.shape[2]))
        same_BTS = same_BTS.astype(jnp.float32)
        shares_BTS = same_BTS / jnp.maximum(jnp.sum(same_BTS, axis=2, keepdims=True), 1.0)
        return jnp.einsum("BTS,BSD->BTD", shares_BTS.astype(hidden_BSD.dtype), hidden_BSD)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        """Hypotheses have no state: the output depends on the source and the index alone."""
        hidden = memory.hidden
        if self.config.readout != "position":
            hidden = self._pooled(memory.hidden, (memory.segments > 0)[:, None])
        return EncoderCache(jnp.zeros((), jnp.int32), memory.segments, hidden)

    def step(
        self, tokens: Int[Array, "B W"], cache: EncoderCache
    ) -> tuple[Float[Array, "B W D"], Cache]:
        B, W = tokens.shape
        index_B1 = jnp.broadcast_to(cache.index, (B, 1))
        if self.config.readout == "position":
            counts_B1 = jnp.sum(cache.segments > 0, axis=1, keepdims=True, dtype=jnp.int32)
            x_B1D = _at(cache.hidden, jnp.zeros_like(index_B1), index_B1, counts_B1)
        else:
            x_B1D = self.readout(cache.hidden, index_B1)
        x_BWD = jnp.broadcast_to(x_B1D, (B, W, x_B1D.shape[2]))
        return x_BWD, cache.replace(index=cache.index + 1)  # pyright: ignore


def _at(
    hidden_BSD: Array, first_BT: Array, positions_BT: Array, counts_BT: Array
) -> Float[Array, "B T D"]:
    """The hidden states at positions of segments that begin at `first`; zeros behind their ends."""
    places_BT = jnp.minimum(first_BT + positions_BT, hidden_BSD.shape[1] - 1)
    x_BTD = jnp.take_along_axis(hidden_BSD, places_BT[..., None], axis=1)
    return jnp.where((positions_BT < counts_BT)[..., None], x_BTD, 0.0)
