"""The Transformer of "Attention Is All You Need": an encoder, and a decoder that attends to it."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.attention import Mask, unknown_backend
from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.models.dropout import Dropout
from transformer.models.embedding import Embedding
from transformer.models.initializers import Depth
from transformer.models.seq2seq import Cache, Memory, Seq2Seq
from transformer.models.transformer.kv_cache import (
    DecoderCache,
    VisibleKeys,
    decode_step,
    empty_cache,
)
from transformer.models.transformer.layers import (
    DecoderLayer,
    EncoderLayer,
    layer_products,
    stack,
)
from transformer.models.transformer.positions import Positions
from transformer.models.transformer.residual import Norm, needs_final_norm


class EncoderDecoder(Seq2Seq):
    """The encoder-decoder Transformer (AIAYN §3)."""

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        return unknown_backend(config.attention.backend)

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """Every multiply-add of a matrix product counts 2; softmax, norms and lookups nothing."""
        c = config
        attention, feed_forward = layer_products(c, length)
        encoder = c.encoder_layers * (attention + feed_forward)
        decoder = c.decoder_layers * (2 * attention + feed_forward)
        return 2.0 * (encoder + decoder + c.d_model * c.vocab_size)

    def setup(self) -> None:
        c, same = self.config, nn.broadcast
        self.embedding = Embedding(c, c.d_model)
        self.positions = Positions(c)
        self.dropout = Dropout(c.dropout)
        self.encoder = stack(EncoderLayer, "source", c, __call__=same)
        self.decoder = stack(
            DecoderLayer,
            "target",
            c,
            __call__=same,
            cross_kv=same,
        )
        if needs_final_norm(c):
            self.encoder_norm, self.decoder_norm = Norm(c), Norm(c)

    def _encode_positions(self, x_BTD: Array, positions: Array, side: str) -> Array:
        return self.dropout(self.positions.add(x_BTD, positions, side))

    def encode(self, source: Source) -> Memory:
        segments, positions = source.segments, source.positions
        context = self.positions.self_attention_context(segments, positions, "source")
        x_BSD = self._encode_positions(self.embedding.source(source.ids), positions, "source")
        x_BSD, _ = self.encoder(x_BSD, context)
        if needs_final_norm(self.config):
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(x_BSD, positions, segments)

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        segments, positions = target.segments, target.positions
        context = self.positions.self_attention_context(segments, positions, "target")
        cross_mask = Mask(segments, memory.segments, positions, memory.positions)
        x_BTD = self._encode_positions(self.embedding(target.ids), positions, "target")
        x_BTD, _ = self.decoder(x_BTD, memory.hidden, context, cross_mask)
        return self.decoder_norm(x_BTD) if needs_final_norm(self.config) else x_BTD

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        _, cross_kv = self.decoder.cross_kv(None, memory.hidden)
        return empty_cache(self.config, self.decoder, memory, cross_kv, length, beams)

    def step(
        self, tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W D"], Cache]:
        positions = jnp.broadcast_to(cache.index, tokens.shape)
        x_BWD = self._encode_positions(self.embedding(tokens), positions, "target")
        memory_keys = VisibleKeys.all_of(cache.segments, positions)
        layer = DecoderLayer(self.config, Depth.of(self.config, "target"), parent=None)
        x_BWD, cache = decode_step(layer, x_BWD, cache, positions, memory_keys, self.positions)
        return (self.decoder_norm(x_BWD) if needs_final_norm(self.config) else x_BWD), cache
