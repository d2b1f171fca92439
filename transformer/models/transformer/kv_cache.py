"""The KV cache: keys and values that decoding keeps, and attention of one new position over them.

Keys and values stay where they were written. Position l of a sentence's W hypotheses has W slots,
one for each hypothesis that stood there, and `ancestors` says which slot each hypothesis continues
from. When hypotheses change places only `ancestors` moves: all W read all slots, and a mask leaves
each hypothesis its own. Cross-attention's keys and values are of the source alone, never tiled.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from transformer.attention import masked_softmax
from transformer.config import ModelConfig
from transformer.models.precision import compute_dtype
from transformer.models.seq2seq import Cache, Memory, pick_parents
from transformer.models.transformer.positions import Positions, Rotation
from transformer.sharding import constrain


@struct.dataclass
class KVCache:
    """Keys and values of one layer, laid out as the two products read them: no transpose a step."""

    k: Any  # [B, G, K, S]
    v: Any  # [B, G, S, U]

    @classmethod
    def of(cls, k: Float[Array, "B S G K"], v: Float[Array, "B S G U"]) -> Self:
        """Takes keys and values as attention's projections give them."""
        return cls(jnp.transpose(k, (0, 2, 3, 1)), jnp.transpose(v, (0, 2, 1, 3)))

    def write(self, new: "KVCache", slot: Int[Array, ""]) -> Self:
        """Overwrites from `slot` on; in place where nothing else needs the old values."""
        update = jax.lax.dynamic_update_slice_in_dim
        k, v = update(self.k, new.k, slot, axis=3), update(self.v, new.v, slot, axis=2)
        return self.replace(k=k, v=v)  # pyright: ignore


@struct.dataclass
class DecoderCache(Cache):
    """What a Transformer's decoder carries from one position to the next; tuples are by layer.

    Attributes:
        cross_kv: of the memory (or, without an encoder, of the prompt); shared by a sentence's W
            hypotheses.
        ancestors: for each hypothesis and position, the slot that it continues from.
        self_kv: of what hypotheses have written, L · W slots.
        layer_params: the decoder's parameters, one tree a layer.
    """

    cross_kv: tuple[KVCache, ...]
    ancestors: Int[Array, "B W L"]
    self_kv: tuple[KVCache, ...]
    layer_params: tuple[Any, ...]

    def reorder(self, parents_BW: Int[Array, "B W"]) -> Self:
        return self.replace(ancestors=pick_parents(self.ancestors, parents_BW, axis=1))  # pyright: ignore

    @property
    def per_source(self) -> Any:
        return self.cross_kv

    @property
    def per_hypothesis(self) -> Any:
        return self.ancestors, self.self_kv


@struct.dataclass
class VisibleKeys:
    """Which keys hypotheses see at one position of decoding, and where queries and keys stand."""

    allowed: Any  # bool [B, W, S]; [B, 1, S] where all see the same
    q_positions: Any  # int32 [B, W]
    k_positions: Any  # int32 [B, S]
    bias: Any = None

    @classmethod
    def all_of(
        cls, segments: Int[Array, "B S"], q_positions: Int[Array, "B W"], bias: Any = None
    ) -> Self:
        """Every key of a sentence but its padding."""
        places_BS = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
        return cls((segments > 0)[:, None], q_positions, places_BS, bias)


@struct.dataclass
class StepContext:
    """What each layer is told of the position that it computes.

    Attributes:
        index: how many positions were written before.
        self_keys: which written keys each hypothesis sees.
        cross_keys: which keys of the memory, or of the prompt, all hypotheses of a sentence see.
        rotation: RoPE of queries and new keys.
    """

    index: Int[Array, ""]
    self_keys: VisibleKeys
    cross_keys: VisibleKeys
    rotation: Rotation | None = None


def empty_cache(
    config: ModelConfig, layers: nn.Module, memory: Memory, cross_kv: Any, length: int, beams: int
) -> DecoderCache:
    """Makes the cache before its first position: what `init_cache` returns.

    Args:
        config: the model's.
        layers: the stack that will read it, in one loop over stacked parameters.
        memory: the encoder's.
        cross_kv: keys and values of all layers, ([N, B, S, G, K], [N, B, S, G, U]).
        length: L, positions at most.
        beams: W.
    """
    c, dtype, B = config, compute_dtype(config), memory.hidden.shape[0]
    slots = length * beams

    def empty() -> KVCache:
        k = jnp.zeros((B, c.key_value_heads, c.d_k, slots), dtype)
        v = jnp.zeros((B, c.key_value_heads, slots, c.d_v), dtype)
        return KVCache(
            constrain(k, "batch", "kv_heads", "head_size", None),
            constrain(v, "batch", "kv_heads", None, "head_size"),
        )

    # A loop over positions does not cut one layer's weights out of the stack each time it comes by.
    layer_params = jax.lax.optimization_barrier(unstack_layers(layers.variables["params"]))
    return DecoderCache(
        index=jnp.zeros((), jnp.int32),
        segments=memory.segments,
        cross_kv=tuple(KVCache.of(*keys_values) for keys_values in unstack_layers(cross_kv)),
        ancestors=jnp.zeros((B, beams, length), jnp.int32),
        self_kv=tuple(empty() for _ in layer_params),
        layer_params=layer_params,
    )


def unstack_layers(tree: Any) -> tuple[Any, ...]:
    """Cuts a tree whose leaves are [N, ...] into one tree a layer."""
    N = len(jax.tree.leaves(tree)[0])
    return tuple(jax.tree.map(lambda leaf: leaf[n], tree) for n in range(N))  # noqa: B023


def decode_step(
    layer: nn.Module,
    x: Float[Array, "B W D"],
    cache: DecoderCache,
    q_positions: Int[Array, "B W"],
    cross_keys: VisibleKeys,
    positions: Positions,
) -> tuple[Float[Array, "B W D"], DecoderCache]:
    """Takes one position through every layer, and writes its keys and values.

    Args:
        layer: one of them; its `step` takes x, its `self_kv`, its `cross_kv` and a `StepContext`.
        x: the first layer's input.
        cache: with `index` positions written.
        q_positions: each hypothesis's position in its sequence: beyond `index` after a prompt.
        cross_keys: which of the keys in `cross_kv` are seen.
        positions: the model's positional encoding.
    """
    B, W, L = cache.ancestors.shape
    itself_1W1 = jnp.arange(W, dtype=jnp.int32)[None, :, None]
    ancestors_BWL = jax.lax.dynamic_update_slice_in_dim(
        cache.ancestors, jnp.broadcast_to(itself_1W1, (B, W, 1)), cache.index, axis=2
    )
    self_keys = VisibleKeys(
        allowed=own_slots(ancestors_BWL, cache.index),
        q_positions=jnp.broadcast_to(cache.index, (B, W)),
        k_positions=jnp.broadcast_to(jnp.repeat(jnp.arange(L, dtype=jnp.int32), W), (B, L * W)),
        bias=positions.bias("target"),
    )
    context = StepContext(cache.index, self_keys, cross_keys, positions.rotation(q_positions))
    self_kv = []
    for params, own_kv, cross_kv in zip(
        cache.layer_params, cache.self_kv, cache.cross_kv, strict=True
    ):
        x, own_kv = layer.apply({"params": params}, x, own_kv, cross_kv, context, method="step")  # pyright: ignore
        self_kv.append(own_kv)
    changes = {"index": cache.index + 1, "ancestors": ancestors_BWL, "self_kv": tuple(self_kv)}
    return x, cache.replace(**changes)  # pyright: ignore


def own_slots(ancestors: Int[Array, "B W L"], index: Int[Array, ""]) -> Bool[Array, "B W J"]:
    """True at those of J = L · W slots that each hypothesis has written or continues from."""
    B, W, L = ancestors.shape
    own_BWLV = ancestors[..., None] == jnp.arange(W)[None, None, None]
    written_L = jnp.arange(L) <= index
    return (own_BWLV & written_L[None, None, :, None]).reshape(B, W, L * W)


@struct.dataclass
class KVSource:
    """Keys and values to attend to, which of them are seen, and a bias on their scores."""

    kv: KVCache
    allowed: Any  # bool [B, W or 1, S]
    bias: Any = None  # [B or 1, H or 1, W or 1, S]


def attend_cached(q: Float[Array, "B W H K"], *sources: KVSource) -> Float[Array, "B W H U"]:
    """softmax(q kᵀ / √K + bias) v over the keys of all sources (AIAYN §3.2.1, Eq. 1).

    G key/value heads serve H query heads in equal groups. Products take their inputs' dtype and
    accumulate in float32, in which the softmax is computed. Queries are few (one position of W
    hypotheses), so whole scores are small, whatever the backend of everything else.
    """
    B, W, H, K = q.shape
    G = sources[0].kv.k.shape[1]
    q_BGRK = jnp.moveaxis(q * K**-0.5, 2, 1).reshape(B, G, H // G * W, K)

    def scores(source: KVSource) -> Float[Array, "B H W S"]:
        scores_BGRS = jnp.einsum(
            "BGRK,BGKS->BGRS", q_BGRK, source.kv.k, preferred_element_type=jnp.float32
        )
        scores_BHWS = scores_BGRS.reshape(B, H, W, -1)
        return scores_BHWS if source.bias is None else scores_BHWS + source.bias.astype(jnp.float32)

    allowed = [jnp.broadcast_to(s.allowed, (B, W, s.allowed.shape[2])) for s in sources]
    weights_BHWS = masked_softmax(
        jnp.concatenate([scores(source) for source in sources], axis=3),
        jnp.concatenate(allowed, axis=2)[:, None],
    )
    out_BGRU, first = jnp.float32(0), 0
    for source in sources:
        v_BGSU = source.kv.v
        S = v_BGSU.shape[2]
        weights_BGRS = weights_BHWS[..., first : first + S].reshape(B, G, -1, S)
        out_BGRU += jnp.einsum(
            "BGRS,BGSU->BGRU",
            weights_BGRS.astype(v_BGSU.dtype),
            v_BGSU,
            preferred_element_type=jnp.float32,
        )
        first += S
    return jnp.moveaxis(out_BGRU.reshape(B, H, W, -1), 1, 2).astype(q.dtype)
