"""Randomness: one seed, a named stream, then whatever counts within it. Nothing else draws keys."""

import enum

import jax
from jaxtyping import Array, PRNGKeyArray


class Stream(enum.IntEnum):
    """What a key is for. A stream's number is part of every result: append, never renumber."""

    INIT = 0
    DROPOUT = 1
    DATA = 2
    SAMPLING = 3
    MASKING = 4


def key(seed: int | Array, stream: Stream, *counters: int | Array) -> PRNGKeyArray:
    """key(seed) → fold_in(stream) → fold_in(step) → ...: the same arguments, the same key.

    Args:
        seed: the experiment's; an int, or an int32 scalar.
        stream: what the key is for; two streams never share a key.
        counters: step, micro-batch, example ... in this order; ints or int32 scalars.
    """
    result = jax.random.fold_in(jax.random.key(seed), stream)
    for counter in counters:
        result = jax.random.fold_in(result, counter)
    return result
