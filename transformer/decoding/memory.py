"""Whether a search fits: the least memory that it takes, and the most that there is."""

import contextlib
from typing import Any

import jax

from transformer import memory

SMALL = 100_000  # positions of all hypotheses: fewer are not looked at, which takes a while


def least_bytes(cache: Any, logits: Any, beam: int) -> int:
    """The bytes of one step of a search: its logits and its cache, of which reordering copies one
    array at a time.

    Args:
        cache: arrays, or their shapes; of all hypotheses.
        logits: the same.
        beam: hypotheses of a sentence; one alone is not reordered.
    """
    arrays = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache)]
    copied = max(arrays, default=0) if beam > 1 else 0
    return sum(arrays) + copied + logits.size * logits.dtype.itemsize


def bytes_of(program: Any) -> int:
    """What a compiled program works with on all devices; 0 where it does not say."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes * jax.device_count() if analysis else 0


def refuse_too_large(needed: int, rows: int, length: int, beam: int, extra_length: int) -> None:
    """Refuses a search that cannot fit into all memory that there is.

    Raises:
        UserError: names the keys, and both numbers.
    """
    memory.require(
        needed,
        f"decoding.beam={beam} and decoding.extra_length={extra_length} take at least {{}} for "
        f"{rows} sentences of {length} tokens",
        "set them, or decoding.tokens_per_batch, lower",
    )


def said_in_one_line(beam: int, extra_length: int) -> contextlib.AbstractContextManager[None]:
    """Raises UserError where a device runs out of memory all the same."""
    return memory.exhausted_as(
        f"the search runs out of memory with decoding.beam={beam} and decoding.extra_length="
        f"{extra_length}: set them, or decoding.tokens_per_batch, lower"
    )
