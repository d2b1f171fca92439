"""A digest of every array of a tree, the same whatever devices its parts are on.

Storage gives wrong bits in silence, now and then; a checkpoint therefore carries these, and what
is read back is held to them. A digest is 64 bits: two sums, modulo 2³², of a scrambled word for
each element and its place. Sums of integers do not depend on their order, so neither does the
digest on how an array is split; and it is computed where the array is, with nothing gathered.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

PLACE, SECOND = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)  # odd, without pattern


def digests(tree: Any) -> dict[str, str]:
    """The digest of each leaf by its path, 16 hexadecimal digits; shape and dtype count too.

    Every process of a run must call it, as each has a part of the arrays.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = np.asarray(_sums([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{high:08x}{low:08x}"
        for (path, _), (high, low) in zip(leaves, sums, strict=True)
    }


@jax.jit
def _sums(leaves: list[Array]) -> UInt32[Array, "leaves 2"]:
    return jnp.stack([_sum(leaf) for leaf in leaves])


# Traced once for each shape and type: parameters, and what the optimizer keeps of them, share them.
@jax.jit
def _sum(array: Array) -> UInt32[Array, " 2"]:
    words, width = _words(array)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, stride in enumerate(_strides(words.shape)):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        place += index * np.uint32(stride % 2**32)
    scrambled = _scramble(words ^ (place * PLACE + np.uint32(_of_type(array, width))))
    # One reduction of two operands: XLA makes it a single pass that keeps nothing, where two sums
    # would each write an array as large as the one they are to check.
    both = (scrambled, _scramble(scrambled + SECOND))
    zero = (np.uint32(0), np.uint32(0))
    axes = range(words.ndim)
    return jnp.stack(jax.lax.reduce(both, zero, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes))


def _words(array: Array) -> tuple[UInt32[Array, "..."], int]:
    """An array's bits as 32-bit words, and its bits an element; 64-bit ones get an axis more."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = array.dtype.itemsize
    if width == 8:
        return jax.lax.bitcast_convert_type(array, jnp.uint32), width
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32), width


def _of_type(array: Array, width: int) -> int:
    """A number for shape and element size."""
    return functools.reduce(lambda h, n: (h * 1_000_003 + n) % 2**32, (*array.shape, width), 7)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A one-to-one map of 32-bit words whose bits all depend on all (MurmurHash3's finaliser)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
