"""Every backend against the reference: in each use, with masks and precisions in turn.

The default lane holds every pair of backend and use, of use and mask, of backend and precision,
forward and backward; the slow one every pair of backend and mask. The whole table, with its leak
proofs, is `tests/run -m long tests/attention`, and `transformer verify` on any machine.
"""

import dataclasses
import importlib
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.attention import Sizes, Split, backends, verify, verify_report
from transformer.attention.backends import Call, find_backend
from transformer.attention.verify import LIMITS, PROGRAMS, USES, Cell
from transformer.errors import UserError

verify_module = importlib.import_module("transformer.attention.verify")
NAMES = ["reference", "xla", "chunked", "splash", "ring:chunked", "ring:splash", "ulysses"]

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


def in_turn() -> Iterator:
    """Every backend in every use, with a mask and a precision; the slow lane: with another mask."""
    programs, precisions = list(PROGRAMS), list(LIMITS)
    for lane, (i, name), (j, use) in itertools.product((0, 1), enumerate(NAMES), enumerate(USES)):
        program = programs[(i + 2 * j + lane) % len(programs)]
        precision = precisions[(i + j) % len(precisions)]
        marks = pytest.mark.slow if lane else ()
        yield pytest.param(name, use, program, precision, marks=marks)


def hold(cell: Cell) -> None:
    if cell.refused:
        assert any(why in cell.refused for why in MAY_REFUSE.get(cell.backend, ())), cell.refused
    assert cell.fault is None, f"{cell.backend}, {cell.use}, {cell.case}: {cell.fault}"


@pytest.mark.parametrize(("backend", "use", "program", "precision"), list(in_turn()))
def test_a_backend_equals_the_reference(
    backend: str, use: str, program: str, precision: str
) -> None:
    cells = list(verify([backend], sizes(), uses=[use], programs=[program], precisions=[precision]))
    assert len(cells) == (4 if program == "plain" else 1)
    for cell in cells:
        hold(cell)
        assert cell.refused or (cell.leaks_tried and cell.forward.keys() == {precision})


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("use", USES)
def test_every_cell(use: str, program: str) -> None:
    for cell in verify(NAMES, sizes(), uses=[use], programs=[program]):
        hold(cell)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["xla", "chunked", "cudnn"])
def test_on_a_gpu(backend: str) -> None:
    """JAX_PLATFORMS=cuda tests/run -m gpu"""
    for cell in verify([backend], Sizes(length=301, heads=4, d_k=64, d_v=64)):
        assert cell.fault is None, f"{backend}, {cell.use}, {cell.case}: {cell.fault}"
        if backend != "cudnn":
            assert cell.refused is None
        elif cell.case not in ("bias", "d_k ≠ d_v"):
            assert cell.forward.keys() == {"bfloat16"}, "cuDNN takes 16-bit numbers"
            assert cell.leaks_tried


GOOD = {"highest": 2e-7, "default": 3e-3, "bfloat16": 4e-3}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"refused": "no additive bias"}, None),
        ({"forward": {"highest": 2e-5}}, "values differ by 2e-05 (highest)"),
        ({"forward": {"default": 2e-2}}, None),  # shown, not judged
        ({"backward": {"bfloat16": float("nan")}}, "gradients differ by nan (bfloat16)"),
        ({"leaks": 3}, "3 gradients leak"),
    ],
)
def test_what_is_a_fault(changes: dict, fault: str | None) -> None:
    assert Cell("xla", "cross", "none", **{"forward": GOOD, **changes}).fault == fault


def test_a_wrong_backend_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets queries see padding and the future, as wrappers elsewhere have."""
    xla = find_backend("xla")

    def everything_seen(call: Call):
        ones = dataclasses.replace(
            call.mask,
            q_segments=jnp.ones_like(call.mask.q_segments),
            k_segments=jnp.ones_like(call.mask.k_segments),
        )
        return xla.compute(dataclasses.replace(call, mask=ones))

    careless = dataclasses.replace(xla, name="careless", compute=everything_seen)
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, careless))
    options = {"uses": ["cross"], "programs": ["plain"], "precisions": ["highest"]}
    cells = list(verify(["careless"], Sizes(length=9, heads=2, d_k=8, d_v=8), **options))
    faulty = {cell.case for cell in cells if cell.fault}
    assert faulty == {"padding", "segments", "empty row"}
    leaky = {cell.case for cell in cells if cell.leaks}
    assert leaky == faulty


def test_a_backend_of_16_bits_alone_is_held_to_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses float32, as cuDNN does; what it computes in bfloat16 is judged, leaks too."""
    xla = find_backend("xla")

    def only_16_bits(call: Call) -> str | None:
        return "16-bit numbers only" if call.q.dtype == jnp.float32 else None

    def leaky(call: Call):
        return xla.compute(call) + 1e-4 * jnp.sum(call.v, 1, keepdims=True)

    rows = [
        dataclasses.replace(xla, name="half", unsupported=only_16_bits),
        dataclasses.replace(xla, name="leaky", unsupported=only_16_bits, compute=leaky),
    ]
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, *rows))
    cells = list(verify(["half", "leaky"], Sizes(9, 2, 8, 8), uses=["cross"], programs=["plain"]))
    assert all(cell.forward.keys() == {"bfloat16"} and cell.leaks_tried for cell in cells)
    assert {cell.backend for cell in cells if cell.fault} == {"leaky"}
    assert not any(cell.refused for cell in cells)


def test_gradients_that_are_nothing_are_no_fault() -> None:
    """A window of one key: its weight is 1, and no score's gradient is more than rounding."""
    problem = (jnp.full((1, 1, 1, 1), 3e-8), jnp.ones((1, 1, 1, 1)))
    expected = (jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    assert verify_module._error(problem, expected, slice(None)) < 1e-5
    assert verify_module._error(expected[::-1], expected, slice(None)) == 1.0


def test_arrays_are_split_as_a_models_are() -> None:
    """Rows, heads, and positions where they divide: also for who leaves it to the partitioner."""
    split = sizes().split
    placed = jax.jit(lambda x: verify_module._placed(x, split))(jnp.ones((8, 12, 4, 8)))
    assert placed.sharding.shard_shape(placed.shape) == (4, 6, 2, 8)
    whole = jax.jit(lambda x: verify_module._placed(x, split))(jnp.ones((8, 13, 3, 8)))
    assert whole.sharding.shard_shape(whole.shape) == (4, 13, 3, 8)


@pytest.mark.parametrize(("heads", "groups"), [(5, 1), (6, 3), (8, 4), (1, 1)])
def test_grouped_heads_divide(heads: int, groups: int) -> None:
    assert verify_module._groups(Sizes(9, heads, 8, 8)) == groups
    assert verify_module._groups(sizes(heads=6)) == 2, "over two devices"


def test_too_few_positions_are_refused() -> None:
    with pytest.raises(UserError, match="--length is 2: segments and padding need at least 3"):
        Sizes(2, 2, 8, 8)
    with pytest.raises(UserError, match="no attention backend 'x'"):
        list(verify(["xla", "x"], Sizes(9, 2, 8, 8)))


def test_the_verdict_is_read_at_a_glance() -> None:
    cells = [
        Cell("xla", "cross", "none", forward=GOOD, backward=GOOD, leaks_tried=5),
        Cell("xla", "cross", "bias", forward={"highest": 1.0}, leaks_tried=5),
        Cell("splash", "cross", "bias", refused="no additive bias"),
    ]
    short, whole = (
        verify_report.summary(cells).splitlines(),
        verify_report.table(cells).splitlines(),
    )
    assert short[0].split()[:3] == ["backend", "use", "none"]
    assert short[1].split() == ["xla", "cross", "ok", "FAULT"]
    assert short[2].split() == ["splash", "cross", "no", "(1)"]
    assert short[-2:] == [
        "(1) no additive bias",
        "xla, cross, bias: values differ by 1e+00 (highest)",
    ]
    assert {line.count("|") for line in whole} == {11}
    assert whole[2] == (
        "| xla | cross | none | 2e-07 | 3e-03 | 4e-03 | 2e-07 | 3e-03 | 4e-03 | 0 (5 queries) |"
    )
    assert "refuses: no additive bias" in whole[4]
