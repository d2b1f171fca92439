"""Block kernels: parts of the keys put together, many small blocks, dropout, what is skipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from transformer.attention import Dropout, Mask, attend, splash
from transformer.attention import chunked as chunked_module
from transformer.attention.chunked import Chunked
from transformer.attention.kernels import attend_in_blocks, merge
from transformer.testing import assert_equals_reference

B, T, S, H, G, K, U = 2, 11, 17, 6, 2, 3, 5


def arrays(B: int = B) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = [(B, T, H, K), (B, S, G, K), (B, S, G, U), (B, T, H, U)]
    return tuple(jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))


def packed_mask(**options) -> Mask:
    """Row 0: two segments and padding on both sides; row 1: one segment, an empty end."""
    q, k = np.ones((B, T), np.int32), np.ones((B, S), np.int32)
    q[0, 4:], k[0, 7:], q[0, 10:], k[0, 15:], q[1, 8:] = 2, 2, 0, 0, 0
    positions = lambda n: jnp.tile(jnp.arange(n, dtype=jnp.int32), (B, 1))  # noqa: E731
    return Mask(jnp.asarray(q), jnp.asarray(k), positions(T), positions(S), **options)


@struct.dataclass
class PerHead:
    table: jax.Array

    def __call__(self, q_positions, k_positions):
        distance = jnp.clip(q_positions[:, :, None] - k_positions[:, None, :], -2, 2) + 2
        return jnp.moveaxis(self.table[:, distance], 0, 1)


@pytest.mark.parametrize(
    ("options", "bias"),
    [({"is_causal": True}, None), ({"window": 4}, PerHead(jnp.linspace(-1, 1, 30).reshape(H, 5)))],
)
def test_many_small_blocks_equal_the_reference(options: dict, bias) -> None:
    """Blocks of 3 queries and 4 keys, which divide neither length; a bias that is learned."""
    q, k, v, cotangent = arrays()
    mask = packed_mask(**options)

    def both(function):
        out, pull = jax.vjp(function, q, k, v, bias)
        return out, pull(cotangent)

    actual = jax.jit(
        lambda: both(
            lambda q, k, v, bias: attend_in_blocks(Chunked(3, 4), q, k, v, mask, bias, None)
        )
    )()
    expected = jax.jit(
        lambda: both(
            lambda q, k, v, bias: attend(q, k, v, mask=mask, bias=bias, backend="reference")
        )
    )()
    assert_equals_reference(actual, expected)


def test_parts_merge_to_the_whole() -> None:
    """Also where one part, or both, hold nothing for a query: no NaN."""
    q, k, v, _ = arrays()
    mask = packed_mask(is_causal=True)
    whole = Chunked().forward(q, k, v, mask, None, None)

    def part(keys: slice):
        cut = mask.replace(
            k_segments=mask.k_segments[:, keys], k_positions=mask.k_positions[:, keys]
        )
        return Chunked().forward(q, k[:, keys], v[:, keys], cut, None, None)

    merged = merge(*part(slice(0, 6)), *part(slice(6, S)))
    finite = lambda o, lse: (o, jnp.where(jnp.isneginf(lse), -99.0, lse))  # noqa: E731
    assert_equals_reference(finite(*merged), finite(*whole))
    assert bool(jnp.isneginf(whole[1]).any()), "the mask has queries that see nothing"


def test_blocks_that_nobody_sees_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in them does not come through, forward or backward."""
    q, k, v, cotangent = arrays()
    k, v = (x.at[:, 12:].set(jnp.nan) for x in (k, v))
    segments = jnp.ones((B, S), jnp.int32).at[:, 12:].set(0)
    mask = packed_mask().replace(k_segments=segments, q_segments=jnp.ones((B, T), jnp.int32))
    out, pull = jax.vjp(
        lambda q, k, v: attend_in_blocks(Chunked(4, 4), q, k, v, mask, None, None), q, k, v
    )
    for leaf in (out, *pull(cotangent)):
        assert bool(jnp.isfinite(leaf).all())


def test_dropout_is_the_same_in_both_passes() -> None:
    """The gradient is that of the function with these weights dropped: finite differences."""
    q, k, v, cotangent = arrays()
    mask, dropout = packed_mask(), Dropout(jax.random.key(3), rate=0.4)

    @jax.jit
    def loss(q, k, v):
        out = attend_in_blocks(Chunked(4, 5), q, k, v, mask, None, dropout)
        return jnp.sum(out * cotangent)

    direction = arrays()[:3]
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(gradient, direction, strict=True))
    step = 1e-2
    ahead, behind = (
        loss(*(x + sign * step * d for x, d in zip((q, k, v), direction, strict=True)))
        for sign in (1, -1)
    )
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-3)
    kept = Chunked(4, 5).forward(q, k, jnp.ones_like(v), mask, None, dropout)[0]
    assert float(jnp.std(kept[1, :8])) > 0.1
    assert 0.8 < float(jnp.mean(kept[1, :8])) < 1.2


def test_memory_of_a_block_not_of_all_scores() -> None:
    """The compiled program holds no array of all T x S scores."""
    length = 64
    x = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def loss(q, k, v, ids):
        mask = Mask.self_attention(ids, ids, causal=True)
        return attend_in_blocks(Chunked(8, 8), q, k, v, mask, None, None).sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x, ids).as_text()
    assert f"{length}x{length}" not in text
    assert chunked_module.Chunked().block_q >= 128


def test_splash_visits_the_blocks_that_the_mask_has() -> None:
    """Causal: the lower triangle; a window: a band; padding and other segments: nothing."""
    x = jnp.zeros((1, 512, 1, 8))
    segments = jnp.ones((1, 512), jnp.int32).at[:, 384:].set(0)
    positions = jnp.arange(512, dtype=jnp.int32)[None]

    def visited(segments=segments, by_keys=False, **options) -> list:
        mask = Mask.self_attention(segments, positions, **options)
        part = splash._Part(splash.Splash(block=128), x, x, x, mask)
        return np.asarray(part.info(by_keys=by_keys).block_mask)[0].tolist()

    assert visited(causal=True) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert visited(causal=True, window=5)[2] == [0, 1, 1, 0]
    two = segments.at[:, 128:].set(2)
    assert visited(two) == [[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]


def test_splash_fetches_the_next_block_that_it_visits() -> None:
    x = jnp.zeros((1, 512, 1, 8))
    segments = jnp.ones((1, 512), jnp.int32).at[:, 256:].set(2)
    positions = jnp.arange(512, dtype=jnp.int32)[None]
    mask = Mask.self_attention(segments, positions)
    part = splash._Part(splash.Splash(block=128), x, x, x, mask)
    by_queries, by_keys = (np.asarray(part.info(by_keys=by).data_next)[0] for by in (False, True))
    assert by_queries.tolist() == [[0, 1, 0, 0]] * 2 + [[2, 2, 2, 3]] * 2
    assert by_keys.T.tolist() == [[0, 1, 0, 0]] * 2 + [[2, 2, 2, 3]] * 2


def test_sums_are_float32_whatever_the_default() -> None:
    q, k, v, cotangent = arrays()
    expected = Chunked(4, 4).forward(q, k, v, packed_mask(), None, None)
    with jax.enable_x64(True):
        o, lse = Chunked(4, 4).forward(q, k, v, packed_mask(), None, None)
        grads = Chunked(4, 4).backward(q, k, v, packed_mask(), None, None, o, lse, cotangent)
    assert {x.dtype for x in (o, lse, *grads[:3])} == {jnp.dtype(jnp.float32)}
    assert_equals_reference(o, expected[0])
