"""The Transformer of "Attention Is All You Need": an encoder and a decoder of attention alone.

Layers of a stack share one tree of parameters, stacked along a leading axis N, and one loop.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.attention import Mask, unknown_backend
from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.models.layers import (
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    Sublayer,
    compute_dtype,
)
from transformer.models.positions import Positions
from transformer.models.seq2seq import Cache, Memory, Seq2Seq


class EncoderLayer(nn.Module):
    """Self-attention over the whole source, then feed-forward (AIAYN §3.1)."""

    config: ModelConfig

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.attend = Sublayer(self.config)
        self.transform = Sublayer(self.config)

    def __call__(self, x: Float[Array, "B S D"], mask: Mask) -> tuple[Array, None]:
        def self_attention(x_BSD: Array) -> Array:
            q_BSHK = self.self_attention.queries(x_BSD)
            return self.self_attention(q_BSHK, *self.self_attention.keys_values(x_BSD), mask)

        return self.transform(self.attend(x, self_attention), self.feed_forward), None


class DecoderLayer(nn.Module):
    """Self-attention over what is written so far, cross-attention, feed-forward (AIAYN §3.1)."""

    config: ModelConfig

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config)
        self.cross_attention = MultiHeadAttention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.attend = Sublayer(self.config)
        self.cross = Sublayer(self.config)
        self.transform = Sublayer(self.config)

    def __call__(
        self, x: Float[Array, "B T D"], memory: Float[Array, "B S D"], mask: Mask, cross_mask: Mask
    ) -> tuple[Array, None]:
        """All positions at once, in teacher forcing."""

        def self_attention(x_BTD: Array) -> Array:
            q_BTHK = self.self_attention.queries(x_BTD)
            return self.self_attention(q_BTHK, *self.self_attention.keys_values(x_BTD), mask)

        _, fixed = self.cross_keys_values(None, memory)
        x = self.attend(x, self_attention)
        return self._after_self_attention(x, fixed, cross_mask), None

    def cross_keys_values(self, _: None, memory: Float[Array, "B S D"]) -> tuple[None, Any]:
        """The memory's keys and values for this layer; they do not change as the target grows."""
        return None, self.cross_attention.keys_values(memory)

    def step(
        self, x: Float[Array, "B W D"], state: Any, fixed: Any, index: Array, segments: Array
    ) -> tuple[Array, Any]:
        """One position of W hypotheses: `state` holds their keys and values, [B, W, L, H, ...]."""
        B, W, _ = x.shape
        L = state[0].shape[2]
        written_BL = jnp.broadcast_to(jnp.arange(L) <= index, (B * W, L)).astype(jnp.int32)
        ones_B1, ones_BW = jnp.ones((B * W, 1), jnp.int32), jnp.ones((B, W), jnp.int32)
        mask = Mask(ones_B1, written_BL, ones_B1, written_BL)
        cross_mask = Mask(ones_BW, segments, ones_BW, segments)

        def write(old_BWLHK: Array, new_BWHK: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old_BWLHK, new_BWHK[:, :, None], index, 2)

        def self_attention(x_BWD: Array) -> Array:
            nonlocal state
            q_BWHK = self.self_attention.queries(x_BWD)
            state = jax.tree.map(write, state, self.self_attention.keys_values(x_BWD))
            # Hypotheses do not see each other: here they are rows, below they are queries.
            k, v = (leaf.reshape(B * W, *leaf.shape[2:]) for leaf in state)
            q = q_BWHK.reshape(B * W, 1, *q_BWHK.shape[2:])
            return self.self_attention(q, k, v, mask).reshape(B, W, -1)

        x = self.attend(x, self_attention)
        return self._after_self_attention(x, fixed, cross_mask), state

    def _after_self_attention(self, x: Array, fixed: Any, mask: Mask) -> Array:
        k, v = fixed

        def cross_attention(x_BTD: Array) -> Array:
            return self.cross_attention(self.cross_attention.queries(x_BTD), k, v, mask)

        return self.transform(self.cross(x, cross_attention), self.feed_forward)


def _stack(layer: type[nn.Module], layers: int, config: ModelConfig, **methods: Any) -> nn.Module:
    """`layers` copies of a layer in one loop; `methods` says which arguments differ by layer."""
    if config.remat == "full":
        layer = nn.remat(layer, prevent_cse=False, methods=["__call__"])
    common = {
        "variable_axes": {"params": 0, "attention": 0},
        "split_rngs": {"params": True, "dropout": True},
        "metadata_params": {nn.PARTITION_NAME: "layers"},
        "length": layers,
        "unroll": layers if config.unroll else 1,
    }
    methods = {name: {**common, "in_axes": axes} for name, axes in methods.items()}
    return nn.scan(layer, methods=methods)(config)  # pyright: ignore


class Transformer(Seq2Seq):
    """The encoder-decoder Transformer (AIAYN §3)."""

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        return unknown_backend(config.attention.backend)

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """Every multiply-add of a matrix product counts 2; softmax, norms and lookups nothing."""
        c = config
        projections = 2 * c.d_model * c.heads * (c.d_k + c.d_v)
        # A causal query sees half of the keys on average, but the products compute all of them.
        products = length * c.heads * (c.d_k + c.d_v)
        attention, feed_forward = projections + products, 2 * c.d_model * c.d_ff
        encoder = c.encoder_layers * (attention + feed_forward)
        decoder = c.decoder_layers * (2 * attention + feed_forward)
        return 2.0 * (encoder + decoder + c.d_model * c.vocab_size)

    def setup(self) -> None:
        c, same = self.config, nn.broadcast
        self.embedding = Embedding(c, c.d_model)
        self.positions = Positions(c)
        self.dropout = Dropout(c.dropout)
        self.encoder = _stack(EncoderLayer, c.encoder_layers, c, __call__=same)
        self.decoder = _stack(
            DecoderLayer,
            c.decoder_layers,
            c,
            __call__=same,
            cross_keys_values=same,
            step=(0, 0, same, same),
        )
        if c.norm == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(c), LayerNorm(c)

    def _place(self, x_BTD: Array, positions: Array, side: str) -> Array:
        return self.dropout(self.positions.add(x_BTD, positions, side))

    def encode(self, source: Source) -> Memory:
        segments, positions = source.segments, source.positions
        mask = Mask.within(segments, positions)
        x_BSD = self._place(self.embedding.source(source.ids), positions, "source")
        x_BSD, _ = self.encoder(x_BSD, mask)
        if self.config.norm == "pre":
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(x_BSD, positions, segments)

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        segments, positions = target.segments, target.positions
        mask = Mask.within(segments, positions, causal=True)
        cross_mask = Mask(segments, memory.segments, positions, memory.positions)
        x_BTD = self._place(self.embedding(target.ids), positions, "target")
        x_BTD, _ = self.decoder(x_BTD, memory.hidden, mask, cross_mask)
        return self.decoder_norm(x_BTD) if self.config.norm == "pre" else x_BTD

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        c, dtype = self.config, compute_dtype(self.config)
        _, fixed = self.decoder.cross_keys_values(None, memory.hidden)
        lead = (c.decoder_layers, memory.hidden.shape[0], beams, length, c.heads)
        state = (jnp.zeros((*lead, c.d_k), dtype), jnp.zeros((*lead, c.d_v), dtype))
        return Cache(jnp.zeros((), jnp.int32), memory.segments, fixed, state)

    def step(self, tokens: Int[Array, "B W"], cache: Cache) -> tuple[Float[Array, "B W D"], Cache]:
        positions = jnp.broadcast_to(cache.index, tokens.shape)
        x_BWD = self._place(self.embedding(tokens), positions, "target")
        x_BWD, state = self.decoder.step(
            x_BWD, cache.state, cache.fixed, cache.index, cache.segments
        )
        if self.config.norm == "pre":
            x_BWD = self.decoder_norm(x_BWD)
        return x_BWD, cache.replace(index=cache.index + 1, state=state)  # pyright: ignore
