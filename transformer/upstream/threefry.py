"""`jax.random.bernoulli` in one pass over the array.

On CPUs JAX runs the generator's rounds as a loop, with a pass over memory for each four. To be
deleted when JAX draws as fast there.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of Threefry-2x32, Salmon et al. (2011), Table 2


def bernoulli(key: PRNGKeyArray, p: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Draws what `jax.random.bernoulli` draws, bit for bit."""
    words = jax.random.key_data(key)
    if words.shape != (2,) or math.prod(shape) >= 2**32:  # another generator; beyond its low word
        return jax.random.bernoulli(key, p, shape)
    index = jnp.zeros(shape, jnp.uint32)  # of each entry in the array
    for axis in range(len(shape)):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index + along * jnp.uint32(math.prod(shape[axis + 1 :]))
    first, second = _threefry(words[0], words[1], index)
    # The upper 23 bits as the fraction of a float in [1, 2).
    uniform = jax.lax.bitcast_convert_type(((first ^ second) >> 9) | 0x3F800000, jnp.float32) - 1.0
    return uniform < p


def _threefry(
    key0: UInt32[Array, ""], key1: UInt32[Array, ""], low: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011, §3.3) of counters whose high word is 0."""
    keys = key0, key1, key0 ^ key1 ^ jnp.uint32(0x1BD11BDA)
    a, b = jnp.broadcast_to(keys[0], low.shape), low + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            a = a + b
            b = a ^ ((b << rotation) | (b >> (32 - rotation)))
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return a, b
