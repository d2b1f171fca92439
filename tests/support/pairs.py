"""Covering arrays: few combinations of options, in which any two values come together."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any


def covering(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows with every pair of values of any two factors, one pair after another as it fits best.

    Each row starts from a pair that has not come yet and takes, factor by factor, the value that
    brings the most of those still missing (Cohen et al. 1997, without their random restarts).
    """
    names = sorted(factors, key=lambda name: -len(factors[name]))
    missing: set[tuple] = {
        (a, x, b, y)
        for a, b in itertools.combinations(names, 2)
        for x in range(len(factors[a]))
        for y in range(len(factors[b]))
    }
    rows = []
    while missing:
        a, x, b, y = min(missing, key=lambda pair: (names.index(pair[0]), *map(str, pair)))
        row = {a: x, b: y}
        for name in names:
            if name not in row:
                gain = [len(_brought({**row, name: i}, name, names) & missing)
                        for i in range(len(factors[name]))]  # fmt: skip
                # Of equals, another one in each row, so that no value is left to the end.
                turn = len(rows) % len(gain)
                order = [*range(turn, len(gain)), *range(turn)]
                row[name] = max(order, key=lambda i, gain=gain: gain[i])
        for name in names:
            missing -= _brought(row, name, names)
        rows.append({name: factors[name][i] for name, i in row.items()})
    return rows


def _brought(row: dict[str, int], name: str, names: list[str]) -> set[tuple]:
    """The pairs of a row's values that `name` is one of."""
    pairs = (sorted((name, other), key=names.index) for other in row if other != name)
    return {(a, row[a], b, row[b]) for a, b in pairs}


def pairs(row: Mapping[str, Any]) -> set[tuple]:
    """A row's options and values, two at a time."""
    return set(itertools.combinations(sorted((k, str(v)) for k, v in row.items()), 2))


def best_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, each the one that adds the most pairs to those before it."""
    left, ordered, seen = list(rows), [], set()
    while left:
        best = max(left, key=lambda row: len(pairs(row) - seen))
        left.remove(best)
        ordered.append(best)
        seen |= pairs(best)
    return ordered
