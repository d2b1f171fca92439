"""One position at a time: what hypotheses have written, and which of it is whose.

Keys and values stay where they were written. Position l of a sentence's W hypotheses has W places,
one for each that stood there, and `ancestors` says which of them each hypothesis goes on from: this
alone moves when hypotheses change places. All W see all places, and a mask leaves each its own.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from transformer.attention import Kept
from transformer.config import ModelConfig
from transformer.models.layers import compute_dtype
from transformer.models.positions import Positions, Seen
from transformer.models.seq2seq import Cache, Memory
from transformer.sharding import constrain


@struct.dataclass
class Here:
    """What a layer is told of the position that it computes.

    Attributes:
        index: how many positions were written before.
        own: which of what was written each hypothesis sees.
        shared: what all hypotheses of a sentence see: the memory, or the prompt.
        rotation: of queries and new keys.
    """

    index: Any  # int32 []
    own: Seen
    shared: Seen
    rotation: Any = None


def empty_cache(
    config: ModelConfig, layers: nn.Module, memory: Memory, fixed: Any, length: int, beams: int
) -> Cache:
    """A Cache before its first position.

    Args:
        config: the model's.
        layers: the stack that will read it, in one loop over stacked parameters.
        memory: the encoder's.
        fixed: keys and values of all layers, [N, B, S, G, K].
        length: L, positions at most.
        beams: W.
    """
    c, dtype, B = config, compute_dtype(config), memory.hidden.shape[0]
    places = length * beams

    def written() -> Kept:
        k = jnp.zeros((B, c.key_value_heads, c.d_k, places), dtype)
        v = jnp.zeros((B, c.key_value_heads, places, c.d_v), dtype)
        return Kept(
            constrain(k, "batch", "kv_heads", "head_size", None),
            constrain(v, "batch", "kv_heads", None, "head_size"),
        )

    # A loop over positions does not cut one layer's weights out of the stack each time it comes by.
    of_layers = jax.lax.optimization_barrier(unstacked(layers.variables["params"]))
    return Cache(
        index=jnp.zeros((), jnp.int32),
        segments=memory.segments,
        fixed=tuple(Kept.of(*keys_values) for keys_values in unstacked(fixed)),
        state=jnp.zeros((1, B, beams, length), jnp.int32),
        written=tuple(written() for _ in of_layers),
        layers=of_layers,
    )


def unstacked(tree: Any) -> tuple[Any, ...]:
    """A tree for each layer, of one whose leaves are [N, ...]."""
    count = len(jax.tree.leaves(tree)[0])
    return tuple(jax.tree.map(lambda leaf: leaf[n], tree) for n in range(count))  # noqa: B023


def next_position(
    layer: nn.Module,
    x: Float[Array, "B W D"],
    cache: Cache,
    stand: Int[Array, "B W"],
    shared: Seen,
    positions: Positions,
) -> tuple[Float[Array, "B W D"], Cache]:
    """One position through every layer, and the cache with it written.

    Args:
        layer: one of them; its `step` takes x, what is kept of its own and of `fixed`, and `Here`.
        x: what the first layer reads.
        cache: with `index` positions written.
        stand: each hypothesis's position in its sequence: further than `index` after a prompt.
        shared: of the keys in `fixed`, those that are seen.
        positions: the model's.
    """
    _, B, W, L = cache.state.shape
    itself_W = jnp.arange(W, dtype=jnp.int32)[None, None, :, None]
    ancestors_1BWL = jax.lax.dynamic_update_slice_in_dim(
        cache.state, jnp.broadcast_to(itself_W, (1, B, W, 1)), cache.index, axis=3
    )
    own = Seen(
        allowed=own_places(ancestors_1BWL[0], cache.index),
        q_positions=jnp.broadcast_to(cache.index, (B, W)),
        k_positions=jnp.broadcast_to(jnp.repeat(jnp.arange(L, dtype=jnp.int32), W), (B, L * W)),
        bias=positions.bias("target"),
    )
    here = Here(cache.index, own, shared, positions.rotation(stand))
    written = []
    for params, kept, fixed in zip(cache.layers, cache.written, cache.fixed, strict=True):
        x, kept = layer.apply({"params": params}, x, kept, fixed, here, method="step")  # pyright: ignore
        written.append(kept)
    changes = {"index": cache.index + 1, "state": ancestors_1BWL, "written": tuple(written)}
    return x, cache.replace(**changes)  # pyright: ignore


def own_places(ancestors: Int[Array, "B W L"], index: Int[Array, ""]) -> Bool[Array, "B W J"]:
    """Of J = L · W places, those that each hypothesis has written or goes on from."""
    B, W, L = ancestors.shape
    own_BWLV = ancestors[..., None] == jnp.arange(W)[None, None, None]
    written_L = jnp.arange(L) <= index
    return (own_BWLV & written_L[None, None, :, None]).reshape(B, W, L * W)
