"""The decoder-only Transformer: a causal language model with a prompt (Radford et al. 2018, 2019).

A pair's source is the prompt and its target the continuation; the layers see them as one sequence,
in which each position attends to those before it. Wherever the two end, to the layers there is no
border: a target's positions go on from its source's length.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.attention import unknown_backend
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
from transformer.models.transformer.layers import CausalLayer, layer_products, stack
from transformer.models.transformer.positions import Positions
from transformer.models.transformer.residual import Norm, needs_final_norm
from transformer.sharding import constrain


@struct.dataclass
class Joined:
    """Source and target of each row as one sequence of J = S + T positions.

    Each segment is one stretch, its source and then its target, and padding comes last:
    `Mask.self_attention` asks for that, so every backend serves, and packed rows too.
    """

    order: Int[Array, "B J"]  # where each position is in the source's and the target's, end to end
    places: Int[Array, "B T"]  # the target's, in the sequence
    segments: Int[Array, "B J"]
    positions: Int[Array, "B J"]

    @classmethod
    def of(cls, source: Memory, target_segments: Array, target_positions: Array) -> "Joined":
        S = source.segments.shape[1]
        segments_BJ = jnp.concatenate([source.segments, target_segments], axis=1)
        positions_BJ = jnp.concatenate([source.positions, target_positions], axis=1)
        last = jnp.iinfo(jnp.int32).max
        order_BJ = jnp.argsort(jnp.where(segments_BJ == 0, last, segments_BJ), axis=1, stable=True)
        order_BJ = order_BJ.astype(jnp.int32)
        places_BT = jnp.argsort(order_BJ, axis=1)[:, S:].astype(jnp.int32)
        in_order = lambda x_BJ: jnp.take_along_axis(x_BJ, order_BJ, axis=1)  # noqa: E731
        return cls(order_BJ, places_BT, in_order(segments_BJ), in_order(positions_BJ))

    def join(self, source_BSD: Array, target_BTD: Array) -> Float[Array, "B J D"]:
        both_BJD = jnp.concatenate([source_BSD, target_BTD], axis=1)
        return jnp.take_along_axis(both_BJD, self.order[..., None], axis=1)

    def of_target(self, x_BJD: Array) -> Float[Array, "B T D"]:
        return jnp.take_along_axis(x_BJD, self.places[..., None], axis=1)


class DecoderOnly(Seq2Seq):
    """The decoder-only Transformer: `decoder_layers` of self-attention and feed-forward."""

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        if config.tied == "two_way":
            return (
                "model.family=decoder reads prompt and continuation by one table: model.tied is "
                "three_way (the output has it, too) or none (the output has its own)"
            )
        return unknown_backend(config.attention.backend)

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """As the Transformer's; the two tokens are in one sequence of twice the length."""
        layer = sum(layer_products(config, 2 * length))
        return 2.0 * (2 * config.decoder_layers * layer + config.d_model * config.vocab_size)

    def setup(self) -> None:
        c, same = self.config, nn.broadcast
        self.embedding = Embedding(c, c.d_model, one_input=True)
        self.positions = Positions(c, ("target",))
        self.dropout = Dropout(c.dropout)
        self.decoder = stack(
            CausalLayer,
            "target",
            c,
            __call__=same,
            prefill=same,
        )
        if needs_final_norm(c):
            self.decoder_norm = Norm(c)

    def _encode_positions(self, x_BTD: Array, positions: Array) -> Array:
        return self.dropout(self.positions.add(x_BTD, positions, "target"))

    def _normed(self, x_BTD: Array) -> Array:
        return self.decoder_norm(x_BTD) if needs_final_norm(self.config) else x_BTD

    def encode(self, source: Source) -> Memory:
        """The prompt's embeddings: the layers see it together with what follows."""
        x_BSD = self._encode_positions(self.embedding.source(source.ids), source.positions)
        return Memory(x_BSD, source.positions, source.segments)

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        before_BT = _prompt_lengths(memory.segments, target.segments)
        positions_BT = before_BT + target.positions
        joined = Joined.of(memory, target.segments, positions_BT)
        x_BTD = self._encode_positions(self.embedding(target.ids), positions_BT)
        x_BJD = constrain(joined.join(memory.hidden, x_BTD), "batch", "length", "hidden")
        context = self.positions.self_attention_context(joined.segments, joined.positions, "target")
        x_BJD, _ = self.decoder(x_BJD, context)
        return self._normed(constrain(joined.of_target(x_BJD), "batch", "length", "hidden"))

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        """Prefill: reads the prompt once; all hypotheses share its keys and values."""
        context = self.positions.self_attention_context(memory.segments, memory.positions, "target")
        _, prompt_kv = self.decoder.prefill(memory.hidden, context)
        return empty_cache(self.config, self.decoder, memory, prompt_kv, length, beams)

    def step(
        self, tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W D"], Cache]:
        segments = cache.segments
        before_B1 = jnp.sum(segments > 0, axis=1, keepdims=True, dtype=jnp.int32)
        positions_BW = jnp.broadcast_to(before_B1 + cache.index, tokens.shape)
        x_BWD = self._encode_positions(self.embedding(tokens), positions_BW)
        prompt_keys = VisibleKeys.all_of(segments, positions_BW, self.positions.bias("target"))
        layer = CausalLayer(self.config, Depth.of(self.config, "target"), parent=None)
        x_BWD, cache = decode_step(layer, x_BWD, cache, positions_BW, prompt_keys, self.positions)
        return self._normed(x_BWD), cache


def _prompt_lengths(
    source_segments: Int[Array, "B S"], target_segments: Int[Array, "B T"]
) -> Int[Array, "B T"]:
    """Counts, for each target position, the source positions of its segment."""
    same_BTS = target_segments[:, :, None] == source_segments[:, None, :]
    return jnp.sum(same_BTS, axis=2, dtype=jnp.int32)
