"""The Transformer's encoder layer and decoder layer, and stacks of them.

Layers of a stack share one tree of parameters, stacked along a leading axis N, and one loop.
"""

from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from transformer.attention import Mask
from transformer.config import ModelConfig
from transformer.models.initializers import Depth
from transformer.models.transformer.kv_cache import KVCache, StepContext
from transformer.models.transformer.positions import AttentionContext
from transformer.models.transformer.residual import Residual, apply_sublayers, layer_drop
from transformer.models.transformer.sublayers import GATED, FeedForward, MultiHeadAttention
from transformer.sharding import constrain


class EncoderLayer(nn.Module):
    """Self-attention over the whole sequence, then the feed-forward network (AIAYN §3.1)."""

    config: ModelConfig
    depth: Depth

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config, self.depth, is_self_attention=True)
        self.feed_forward = FeedForward(self.config, self.depth)
        self.self_attention_residual = Residual(self.config, self.depth.residual)
        self.feed_forward_residual = Residual(self.config, self.depth.residual)

    def __call__(self, x: Float[Array, "B S D"], context: AttentionContext) -> tuple[Array, None]:
        out = self._sublayers(x, lambda x_BSD: self.self_attention(x_BSD, context))
        return layer_drop(self, self.config.layer_drop, x, out), None

    def _sublayers(self, x: Array, self_attention: Any) -> Array:
        sublayers = [
            (self.self_attention_residual, self_attention),
            (self.feed_forward_residual, self.feed_forward),
        ]
        return apply_sublayers(self.config, x, sublayers)


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, then the feed-forward network (AIAYN §3.1)."""

    config: ModelConfig
    depth: Depth

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config, self.depth, is_self_attention=True)
        self.cross_attention = MultiHeadAttention(self.config, self.depth, is_self_attention=False)
        self.feed_forward = FeedForward(self.config, self.depth)
        self.self_attention_residual = Residual(self.config, self.depth.residual)
        self.cross_attention_residual = Residual(self.config, self.depth.residual)
        self.feed_forward_residual = Residual(self.config, self.depth.residual)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"],
        context: AttentionContext,
        cross_mask: Mask,
    ) -> tuple[Array, None]:
        """All target positions at once: teacher forcing."""

        def cross_attention(x_BTD: Array) -> Array:
            q_BTHK = self.cross_attention.queries(x_BTD)
            return self.cross_attention.attend(q_BTHK, k_BSGK, v_BSGU, AttentionContext(cross_mask))

        # Of keys' and values' gradients by the memory: one sum over devices, as in `Residual`.
        memory = constrain(memory, "batch", "length", "hidden")
        k_BSGK, v_BSGU = self.cross_attention.keys_values(memory)
        self_attention = lambda x_BTD: self.self_attention(x_BTD, context)  # noqa: E731
        out = self._sublayers(x, self_attention, cross_attention)
        return layer_drop(self, self.config.layer_drop, x, out), None

    def cross_kv(self, _: None, memory: Float[Array, "B S D"]) -> tuple[None, Any]:
        """Projects the memory to this layer's keys and values, which the whole decoding reads."""
        return None, self.cross_attention.keys_values(memory)

    def step(
        self, x: Float[Array, "B W D"], self_kv: KVCache, cross_kv: KVCache, context: StepContext
    ) -> tuple[Array, KVCache]:
        """One position of W hypotheses; returns `self_kv` with its keys and values written."""

        def self_attention(x_BWD: Array) -> Array:
            nonlocal self_kv
            q_BWHK, self_kv = self.self_attention.extend(x_BWD, self_kv, context)
            return self.self_attention.attend_cached(q_BWHK, (self_kv, context.self_keys))

        def cross_attention(x_BWD: Array) -> Array:
            q_BWHK = self.cross_attention.queries(x_BWD)
            return self.cross_attention.attend_cached(q_BWHK, (cross_kv, context.cross_keys))

        return self._sublayers(x, self_attention, cross_attention), self_kv

    def _sublayers(self, x: Array, self_attention: Any, cross_attention: Any) -> Array:
        sublayers = [
            (self.self_attention_residual, self_attention),
            (self.cross_attention_residual, cross_attention),
            (self.feed_forward_residual, self.feed_forward),
        ]
        return apply_sublayers(self.config, x, sublayers)


class CausalLayer(EncoderLayer):
    """A layer of a decoder without an encoder: its mask is causal, and it decodes step by step."""

    def prefill(
        self, x: Float[Array, "B S D"], context: AttentionContext
    ) -> tuple[Array, tuple[Array, Array]]:
        """Reads a prompt at once; returns its keys and values, too."""
        attention, rotation, kv = self.self_attention, context.rotation, ()

        def self_attention(x_BSD: Array) -> Array:
            nonlocal kv
            q_BSHK = attention.queries(x_BSD, rotation)
            kv = attention.keys_values(x_BSD, rotation)
            return attention.attend(q_BSHK, *kv, context)

        out = self._sublayers(x, self_attention)
        return layer_drop(self, self.config.layer_drop, x, out), kv  # pyright: ignore

    def step(
        self, x: Float[Array, "B W D"], self_kv: KVCache, prompt_kv: KVCache, context: StepContext
    ) -> tuple[Array, KVCache]:
        """One position of W hypotheses; returns `self_kv` with its keys and values written."""

        def self_attention(x_BWD: Array) -> Array:
            nonlocal self_kv
            q_BWHK, self_kv = self.self_attention.extend(x_BWD, self_kv, context)
            sources = (prompt_kv, context.cross_keys), (self_kv, context.self_keys)
            return self.self_attention.attend_cached(q_BWHK, *sources)

        return self._sublayers(x, self_attention), self_kv


def stack(layer: type[nn.Module], side: str, config: ModelConfig, **methods: Any) -> nn.Module:
    """Runs a side's layers in one loop, with activation checkpointing if `model.remat` says so.

    `methods` says which of their arguments differ by layer.
    """
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
    """Multiply-adds of one position: attention over so many keys, and the feed-forward network.

    A causal query sees half of the keys on average, but the products compute all of them.
    """
    c = config
    projections = c.d_model * (c.heads + c.key_value_heads) * (c.d_k + c.d_v)
    products = keys * c.heads * (c.d_k + c.d_v)
    matrices = 3 if c.feed_forward in GATED else 2
    return projections + products, matrices * c.d_model * c.d_ff
