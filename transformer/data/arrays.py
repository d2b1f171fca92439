"""Index arithmetic on runs of different lengths laid end to end, without a Python loop."""

import numpy as np
from jaxtyping import Int


def starts(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Where each run begins: [3, 1, 2] → [0, 3, 4]. int64."""
    return np.cumsum(lengths, dtype=np.int64) - lengths


def ranges(
    firsts: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " total"]:
    """firsts[i], firsts[i] + 1, ... of lengths[i] numbers, for each i: [7, 0], [2, 3] → 7 8 0 1 2.

    int64; with firsts all 0 it is each element's position within its run.
    """
    total = int(lengths.sum())
    return np.repeat(firsts - starts(lengths), lengths) + np.arange(total)
