"""Every backend against the reference: each pair of (backend, use, mask, precision) by default.

The whole table, and the leak proofs of all of it, is the slow lane's (`tests/run -m slow
tests/attention`), and `transformer verify` on any machine. The part that runs by default holds
every pair of two of backend, use, mask and precision at least once, forward and backward.
"""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from transformer.attention import Sizes, Split, verify
from transformer.attention.verify import LIMITS, PROGRAMS, USES, Cell

NAMES = ["reference", "xla", "chunked", "splash", "ring:chunked", "ring:splash", "ulysses"]
Cells = tuple[str, str, str, str]  # backend, use, program, precision

# What a backend may refuse, and nothing else.
MAY_REFUSE = {
    "splash": ("additive bias", "one sequence"),
    "ring:splash": ("additive bias", "one sequence"),
}


def sizes(**changes: int) -> Sizes:
    """13 positions of 4 heads over 2 x 2 x 2 devices: no length divides."""
    devices = np.array(jax.devices()[:8]).reshape(2, 2, 2)
    mesh = jax.sharding.Mesh(devices, ("data", "sequence", "tensor"))
    split = Split(mesh, ("data",), ("sequence",), ("tensor",))
    return dataclasses.replace(Sizes(length=13, heads=4, d_k=8, d_v=8, split=split), **changes)


def pairwise() -> list[Cells]:
    """Few combinations in which every pair of values occurs."""
    everything = list(itertools.product(NAMES, USES, PROGRAMS, LIMITS))
    pairs = lambda cell: set(itertools.combinations(enumerate(cell), 2))  # noqa: E731
    missing = set().union(*map(pairs, everything))
    chosen = []
    while missing:
        best = max(everything, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def hold(cell: Cell) -> None:
    if cell.refused:
        assert any(why in cell.refused for why in MAY_REFUSE.get(cell.backend, ())), cell.refused
    assert cell.fault is None, f"{cell.backend}, {cell.use}, {cell.case}: {cell.fault}"


@pytest.mark.parametrize(("backend", "use", "program", "precision"), pairwise())
def test_pairwise(backend: str, use: str, program: str, precision: str) -> None:
    cells = list(verify([backend], sizes(), uses=[use], programs=[program], precisions=[precision]))
    assert len(cells) == (4 if program == "plain" else 1)
    for cell in cells:
        hold(cell)
        assert cell.refused or (cell.leaks_tried and cell.forward.keys() == {precision})


@pytest.mark.slow
@pytest.mark.parametrize("backend", NAMES)
def test_every_cell(backend: str) -> None:
    for cell in verify([backend], sizes()):
        hold(cell)
