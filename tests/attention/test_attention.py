"""Attention: the paper's equation on literal numbers, every backend against it, leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.attention import BACKENDS, Dropout, Mask, attend, attention_weights
from transformer.errors import UserError
from transformer.testing import assert_equals_reference

B, T, S, H, K, U = 2, 5, 7, 6, 3, 11


def full(T: int, S: int, **options) -> Mask:
    ones = lambda n: jnp.ones((1, n), jnp.int32)  # noqa: E731
    return Mask(ones(T), ones(S), jnp.arange(T)[None], jnp.arange(S)[None], **options)


def test_soft_dictionary_lookup() -> None:
    """Three keys, d_k = 3, a query equal to the second key: the second value comes back."""
    keys = 10.0 * jnp.eye(3)
    values = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    q, k, v = keys[None, 1:2, None], keys[None, :, None], values[None, :, None]
    scaled = 100.0 / np.sqrt(3.0)  # q·k₂ / √d_k = 57.7; the other logits are 0
    weights = attention_weights(q, k, mask=full(1, 3))[0, 0, 0]
    softmax = np.exp([0.0 - scaled, 0.0, 0.0 - scaled])
    np.testing.assert_allclose(weights, softmax / softmax.sum(), atol=1e-7)
    np.testing.assert_allclose(attend(q, k, v, mask=full(1, 3))[0, 0, 0], values[1], atol=1e-6)


def test_equation_one_in_numpy() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(n, d)).astype(np.float32) for n, d in ((T, K), (S, K), (S, U)))
    scores = q @ k.T / np.sqrt(K)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    qkv = (jnp.asarray(x)[None, :, None] for x in (q, k, v))
    out = attend(*qkv, mask=full(T, S), backend="reference")
    np.testing.assert_allclose(out[0, :, 0], weights @ v, atol=1e-6)


def test_mask_as_a_literal_matrix() -> None:
    """Two packed sentences and a padded end: causal, within a segment, at most 1 position back."""
    segments, positions = jnp.array([[1, 1, 1, 2, 2, 0]]), jnp.array([[0, 1, 2, 0, 1, 0]])
    mask = Mask(segments, segments, positions, positions, causal=True, window=2)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(mask.dense()[0].astype(int), expected)


def cases(T: int, S: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Segments and positions of masks, one a row: none, padding, two segments, an empty row."""
    q_seg, k_seg = np.ones((4, T), np.int32), np.ones((4, S), np.int32)
    k_seg[1, S - 3 :] = q_seg[1, T - 1 :] = 0
    q_seg[2, 2:], k_seg[2, 4:] = 2, 2
    k_seg[3] = 0
    q_pos, k_pos = (
        np.tile(np.arange(T, dtype=np.int32), (4, 1)),
        np.tile(np.arange(S, dtype=np.int32), (4, 1)),
    )
    q_pos[2, 2:] -= 2
    k_pos[2, 4:] -= 4
    return jnp.asarray(q_seg), jnp.asarray(k_seg), jnp.asarray(q_pos), jnp.asarray(k_pos)


def distance_bias(q_positions, k_positions):
    distance = jnp.abs(q_positions[:, None, :, None] - k_positions[:, None, None, :])
    return -0.3 * distance.astype(jnp.float32)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 2}, {"bias": distance_bias}])
@pytest.mark.parametrize("groups", [H, 2])
@pytest.mark.parametrize("backend", [row.name for row in BACKENDS if row.name != "reference"])
def test_equals_reference(backend: str, groups: int, options: dict) -> None:
    """Values and gradients, in every mask case at once."""
    options = dict(options)
    bias = options.pop("bias", None)
    mask = Mask(*cases(T, S), **options)
    keys = jax.random.split(jax.random.key(1), 4)
    q = jax.random.normal(keys[0], (4, T, H, K))
    k = jax.random.normal(keys[1], (4, S, groups, K))
    v = jax.random.normal(keys[2], (4, S, groups, U))
    cotangent = jax.random.normal(keys[3], (4, T, H, U))

    def run(name: str):
        f = lambda q, k, v: attend(q, k, v, mask=mask, bias=bias, backend=name)  # noqa: E731
        out, pull = jax.vjp(f, q, k, v)
        return out, pull(cotangent)

    actual, expected = (
        jax.jit(run, static_argnums=0)(backend),
        jax.jit(run, static_argnums=0)("reference"),
    )
    assert_equals_reference(actual, expected)
    assert np.all(np.asarray(actual[0])[3] == 0), "a row with nothing to attend to gives zeros"
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(actual))


@pytest.mark.parametrize("backend", [row.name for row in BACKENDS])
def test_no_leak(backend: str) -> None:
    """The gradient towards a key or value that a query may not see is exactly zero."""
    mask = Mask(*cases(T, S), causal=True)
    q = jax.random.normal(jax.random.key(0), (4, T, 1, K))
    k = jax.random.normal(jax.random.key(1), (4, S, 1, K))
    v = jax.random.normal(jax.random.key(2), (4, S, 1, U))

    @jax.jit
    def jacobians(k, v):
        f = lambda k, v: attend(q, k, v, mask=mask, backend=backend).sum((2, 3))  # noqa: E731
        return jax.jacrev(f, argnums=(0, 1))(k, v)

    for jacobian in jacobians(k, v):
        seen = np.abs(np.asarray(jacobian)).sum((-1, -2))  # [B, T, B, S]
        for row in range(4):
            leaks = seen[row, :, row] * ~np.asarray(mask.dense()[row])
            assert not leaks.any()
    assert seen[0, T - 1, 0, 0] > 0, "and towards one that it sees it is not"


def test_dropout_keeps_the_mean_and_some_weights() -> None:
    q = jax.random.normal(jax.random.key(0), (B, T, H, K))
    k, v = jax.random.normal(jax.random.key(1), (B, S, H, K)), jnp.ones((B, S, H, U))
    ones = jnp.ones((B, 1), jnp.int32)
    mask = Mask(ones.repeat(T, 1), ones.repeat(S, 1), ones.repeat(T, 1), ones.repeat(S, 1))
    for backend in ("reference", "xla"):
        dropout = Dropout(jax.random.key(3), rate=0.4)
        out = attend(q, k, v, mask=mask, dropout=dropout, backend=backend)
        assert 0.7 < float(out.mean()) < 1.3
        assert float(out.std()) > 0.1
    exact = attend(q, k, v, mask=mask, dropout=dropout, backend="reference")
    assert_equals_reference(out, exact)


def test_bfloat16_stays_close() -> None:
    mask = Mask(*cases(T, S), causal=True)
    q, k, v = (
        jax.random.normal(jax.random.key(i), (4, n, H, d))
        for i, (n, d) in enumerate([(T, K), (S, K), (S, U)])
    )
    low = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask=mask, backend="xla")
    assert low.dtype == jnp.bfloat16
    assert_equals_reference(low, attend(q, k, v, mask=mask, backend="reference"), 2e-2)


def test_an_unknown_backend_is_refused_by_name() -> None:
    x = jnp.ones((1, 2, 1, 3))
    with pytest.raises(UserError, match="'flash' does not exist: auto, xla, reference"):
        attend(x, x, x, mask=full(2, 2), backend="flash")
