"""The Transformer of "Attention Is All You Need": an encoder and a decoder of attention alone.

Layers of a stack share one tree of parameters, stacked along a leading axis N, and one loop.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.attention import Kept, Mask, unknown_backend
from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.models.initializers import Depth
from transformer.models.layers import Embedding
from transformer.models.positions import Positions, Relations, Seen
from transformer.models.residual import (
    Dropout,
    Norm,
    Sublayer,
    norm_is_last,
    through,
    unless_dropped,
)
from transformer.models.seq2seq import Cache, Memory, Seq2Seq
from transformer.models.steps import Here, empty_cache, next_position
from transformer.models.sublayers import GATED, FeedForward, MultiHeadAttention
from transformer.sharding import constrain


class EncoderLayer(nn.Module):
    """Self-attention over the whole source, then feed-forward (AIAYN §3.1)."""

    config: ModelConfig
    depth: Depth

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config, self.depth, within=True)
        self.feed_forward = FeedForward(self.config, self.depth)
        self.attend = Sublayer(self.config, self.depth.residual)
        self.transform = Sublayer(self.config, self.depth.residual)

    def __call__(self, x: Float[Array, "B S D"], relations: Relations) -> tuple[Array, None]:
        return self.read(x, relations)[0], None

    def read(self, x: Float[Array, "B S D"], relations: Relations) -> tuple[Array, Any]:
        """The same, and the keys and values of these positions."""
        attention, rotation, kept = self.self_attention, relations.rotation, None

        def self_attention(x_BSD: Array) -> Array:
            nonlocal kept
            q_BSHK = attention.queries(x_BSD, rotation)
            kept = attention.keys_values(x_BSD, rotation)
            return attention(q_BSHK, *kept, relations)

        out = self._sublayers(x, self_attention)
        return unless_dropped(self, self.config.layer_drop, x, out), kept

    def _sublayers(self, x: Array, self_attention: Any) -> Array:
        functions = [(self.attend, self_attention), (self.transform, self.feed_forward)]
        return through(self.config, x, functions)


class DecoderLayer(nn.Module):
    """Self-attention over what is written so far, cross-attention, feed-forward (AIAYN §3.1)."""

    config: ModelConfig
    depth: Depth

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config, self.depth, within=True)
        self.cross_attention = MultiHeadAttention(self.config, self.depth, within=False)
        self.feed_forward = FeedForward(self.config, self.depth)
        self.attend = Sublayer(self.config, self.depth.residual)
        self.cross = Sublayer(self.config, self.depth.residual)
        self.transform = Sublayer(self.config, self.depth.residual)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"],
        relations: Relations,
        cross_mask: Mask,
    ) -> tuple[Array, None]:
        """All positions at once, in teacher forcing."""
        attention, rotation = self.self_attention, relations.rotation

        def self_attention(x_BTD: Array) -> Array:
            q_BTHK = attention.queries(x_BTD, rotation)
            return attention(q_BTHK, *attention.keys_values(x_BTD, rotation), relations)

        def cross_attention(x_BTD: Array) -> Array:
            q_BTHK = self.cross_attention.queries(x_BTD)
            return self.cross_attention(q_BTHK, k_BSGK, v_BSGU, Relations(cross_mask))

        # Of keys' and values' gradients by the memory: one sum over devices, as in `Sublayer`.
        memory = constrain(memory, "batch", "length", "hidden")
        k_BSGK, v_BSGU = self.cross_attention.keys_values(memory)
        out = self._sublayers(x, self_attention, cross_attention)
        return unless_dropped(self, self.config.layer_drop, x, out), None

    def cross_keys_values(self, _: None, memory: Float[Array, "B S D"]) -> tuple[None, Any]:
        """The memory's keys and values for this layer; they do not change as the target grows."""
        return None, self.cross_attention.keys_values(memory)

    def step(
        self, x: Float[Array, "B W D"], written: Kept, fixed: Kept, here: Here
    ) -> tuple[Array, Kept]:
        """One position of W hypotheses, and what is then written."""

        def self_attention(x_BWD: Array) -> Array:
            nonlocal written
            q_BWHK, written = self.self_attention.write(x_BWD, written, here)
            return self.self_attention.over(q_BWHK, (written, here.own))

        def cross_attention(x_BWD: Array) -> Array:
            q_BWHK = self.cross_attention.queries(x_BWD)
            return self.cross_attention.over(q_BWHK, (fixed, here.shared))

        return self._sublayers(x, self_attention, cross_attention), written

    def _sublayers(self, x: Array, self_attention: Any, cross_attention: Any) -> Array:
        functions = [
            (self.attend, self_attention),
            (self.cross, cross_attention),
            (self.transform, self.feed_forward),
        ]
        return through(self.config, x, functions)


def stack(layer: type[nn.Module], side: str, config: ModelConfig, **methods: Any) -> nn.Module:
    """A side's layers in one loop; `methods` says which of their arguments differ by layer."""
    layers = config.encoder_layers if side == "source" else config.decoder_layers
    if config.remat != "none":
        saved = None if config.remat == "full" else getattr(jax.checkpoint_policies, config.remat)
        layer = nn.remat(layer, prevent_cse=False, methods=["__call__"], policy=saved)
    common = {
        "variable_axes": {"params": 0, "attention": 0},
        "split_rngs": {"params": True, "dropout": True},
        "metadata_params": {nn.PARTITION_NAME: "layers"},
        "length": layers,
        "unroll": layers if config.unroll else 1,
    }
    methods = {name: {**common, "in_axes": axes} for name, axes in methods.items()}
    return nn.scan(layer, methods=methods)(config, Depth.of(config, side))  # pyright: ignore


def layer_products(config: ModelConfig, keys: int) -> tuple[float, float]:
    """Multiply-adds of one position: of attention over so many keys, of the feed-forward network.

    A causal query sees half of the keys on average, but the products compute all of them.
    """
    c = config
    projections = c.d_model * (c.heads + c.key_value_heads) * (c.d_k + c.d_v)
    products = keys * c.heads * (c.d_k + c.d_v)
    matrices = 3 if c.feed_forward in GATED else 2
    return projections + products, matrices * c.d_model * c.d_ff


class Transformer(Seq2Seq):
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
            cross_keys_values=same,
        )
        if norm_is_last(c):
            self.encoder_norm, self.decoder_norm = Norm(c), Norm(c)

    def _place(self, x_BTD: Array, positions: Array, side: str) -> Array:
        return self.dropout(self.positions.add(x_BTD, positions, side))

    def encode(self, source: Source) -> Memory:
        segments, positions = source.segments, source.positions
        relations = self.positions.within(segments, positions, "source")
        x_BSD = self._place(self.embedding.source(source.ids), positions, "source")
        x_BSD, _ = self.encoder(x_BSD, relations)
        if norm_is_last(self.config):
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(x_BSD, positions, segments)

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        segments, positions = target.segments, target.positions
        relations = self.positions.within(segments, positions, "target")
        cross_mask = Mask(segments, memory.segments, positions, memory.positions)
        x_BTD = self._place(self.embedding(target.ids), positions, "target")
        x_BTD, _ = self.decoder(x_BTD, memory.hidden, relations, cross_mask)
        return self.decoder_norm(x_BTD) if norm_is_last(self.config) else x_BTD

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        _, fixed = self.decoder.cross_keys_values(None, memory.hidden)
        return empty_cache(self.config, self.decoder, memory, fixed, length, beams)

    def step(self, tokens: Int[Array, "B W"], cache: Cache) -> tuple[Float[Array, "B W D"], Cache]:
        positions = jnp.broadcast_to(cache.index, tokens.shape)
        x_BWD = self._place(self.embedding(tokens), positions, "target")
        memory = Seen.everywhere(cache.segments, positions)
        layer = DecoderLayer(self.config, Depth.of(self.config, "target"), parent=None)
        x_BWD, cache = next_position(layer, x_BWD, cache, positions, memory, self.positions)
        return (self.decoder_norm(x_BWD) if norm_is_last(self.config) else x_BWD), cache
