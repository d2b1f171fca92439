"""Random draws: those of JAX, only faster."""

import jax
import jax.numpy as jnp
import pytest

from transformer import rng
from transformer.rng import Stream
from transformer.upstream.threefry import bernoulli


@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 17), (2, 1, 130)])
def test_bernoulli_is_jaxs_bit_for_bit(shape: tuple[int, ...]) -> None:
    key = rng.key(3, Stream.DROPOUT, 1)
    for p in (0.1, 0.7, 0.9):
        assert jnp.array_equal(bernoulli(key, p, shape), jax.random.bernoulli(key, p, shape))


def test_other_generators_are_jaxs_own() -> None:
    key = jax.random.key(3, impl="rbg")
    expected = jax.random.bernoulli(key, 0.5, (11,))
    assert jnp.array_equal(bernoulli(key, 0.5, (11,)), expected)


def test_shares_are_as_asked() -> None:
    kept = bernoulli(rng.key(0, Stream.DROPOUT), 0.8, (100, 1_000))
    assert abs(float(jnp.mean(kept.astype(jnp.float32))) - 0.8) < 0.005
