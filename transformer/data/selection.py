"""Which training pairs are left out, and the report that says why.

Only training's plan leaves anything out: a store holds every pair, so its index is the line.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from transformer.data.pairs import IN_CORPUS, IN_TEXT, NAMES, Pair, Problem
from transformer.data.store import Store
from transformer.errors import UserError


def find_problems(
    store: Store,
    *,
    held_out: Sequence[UInt64[np.ndarray, " _"]],
    max_length: int,
    max_ratio: float,
) -> UInt8[np.ndarray, " n"]:
    """All `Problem`s of each training pair.

    Args:
        store: the training set's.
        held_out: the digests of the other sets.
        max_length: tokens of a side at most.
        max_ratio: tokens of the longer side over those of the shorter at most; 0 = any.
    """
    shorter, longer = np.sort(store.lengths, axis=1).T
    problems = store.problems.copy()
    problems[longer > max_length] |= int(Problem.TOO_LONG)
    if held_out:
        problems[np.isin(store.digests, np.concatenate(held_out))] |= int(Problem.HELD_OUT)
    if max_ratio:
        problems[longer > max_ratio * shorter] |= int(Problem.RATIO)
    return problems


def readable(pairs: Iterable[Pair], leave_out: Problem) -> Iterator[Pair]:
    """The pairs whose text has none of these problems: what a tokenizer is trained on.

    Raises:
        UserError: there is none.
    """
    total, readable_count, fallen = 0, 0, Counter()
    for pair in pairs:
        total += 1
        if reasons := pair.problems & leave_out & IN_TEXT:
            fallen.update(reasons)
        else:
            readable_count += 1
            yield pair
    if not readable_count:
        raise UserError(f"{nothing_left(total, fallen)}: mend the text, or loosen data.leave_out")


def nothing_left(total: int, fallen: Counter[Problem]) -> str:
    return f"none of {total:,} training pairs is left ({listed(fallen)})"


def count(problems: UInt8[np.ndarray, " n"], kinds: Problem) -> Counter[Problem]:
    """How many pairs have each of these problems, where any has."""
    counts = Counter({kind: int(((problems & kind) != 0).sum()) for kind in kinds})
    return +counts


def summary(problems: UInt8[np.ndarray, " n"], leave_out: Problem) -> str:
    """One line: how many training pairs are left out, for what."""
    fallen, total = count(problems, leave_out), len(problems)
    left_out = int(((problems & leave_out) != 0).sum())
    if left_out == total:
        return nothing_left(total, fallen)
    return f"left out {left_out:,} of {total:,} training pairs ({listed(fallen)})"


def listed(fallen: Counter[Problem]) -> str:
    """How many pairs have which problems, in words."""
    return ", ".join(f"{fallen[kind]:,} {NAMES[kind]}" for kind in Problem if fallen[kind])


def report(
    store: Store,
    origins: dict[str, str],
    problems: UInt8[np.ndarray, " n"],
    leave_out: Problem,
    kinds: Problem = IN_CORPUS,
) -> dict[str, Any]:
    """JSON-ready: of a split, where it comes from, and the lines that have each kind of problem.

    Lines count from 1 in their own file; where several corpora are mixed they are given for each.
    """
    starts = np.searchsorted(store.parts, np.arange(len(origins) + 1))  # a part is one stretch

    def lines(kind: Problem) -> list[int] | dict[str, list[int]]:
        reports = [
            (np.flatnonzero(problems[start:stop] & kind) + 1).tolist()
            for start, stop in itertools.pairwise(starts)
        ]
        return dict(zip(origins, reports, strict=True)) if len(origins) > 1 else reports[0]

    return {
        "from": origins,
        "pairs": len(store),
        "kept": int(((problems & leave_out) == 0).sum()),
        "problems": {
            str(kind.name).lower(): {
                "count": int(((problems & kind) != 0).sum()),
                "left_out": bool(kind & leave_out),
                "lines": lines(kind),
            }
            for kind in kinds
        },
    }
