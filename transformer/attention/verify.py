"""Every backend against the reference: values, gradients, leaks, in every use and mask.

What a backend is held to: fp32 under matmul precision `highest` within 1e-5 of the reference's
largest number, bf16 within 2e-2; a gradient of exactly zero towards whatever a query may not see;
zeros for a query that may see nothing. What it cannot serve it must refuse, with a reason.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from transformer.attention.api import attend
from transformer.attention.backends import Unserved, find_backend
from transformer.attention.masks import Mask
from transformer.attention.sharded import Split
from transformer.batch import AnyArray
from transformer.errors import UserError

USES = ("encoder self", "decoder self", "cross")
ROWS = ("none", "padding", "segments", "empty row")  # masks that are rows of one program
VARIANTS = ("causal", "window", "bias", "grouped heads", "d_k ≠ d_v")  # each a program
PROGRAMS = ("plain", *VARIANTS)
LIMITS = {"highest": 1e-5, "default": None, "bfloat16": 2e-2}  # None: shown, not judged


@dataclass(frozen=True)
class Sizes:
    """Sizes of the arrays to verify; cross-attention has about three quarters as many keys."""

    length: int
    heads: int
    d_k: int
    d_v: int
    split: Split | None = None

    def __post_init__(self) -> None:
        if self.length < 3:
            raise UserError(
                f"--length is {self.length}: segments and padding need at least 3 positions"
            )

    @property
    def key_length(self) -> int:
        return self.length * 3 // 4 + 1

    @property
    def rows(self) -> int:
        return len(ROWS) * (self.split.count(self.split.batch) if self.split else 1)


@dataclass(frozen=True)
class Cell:
    """One backend, use and mask: largest errors relative to the reference's largest number.

    `forward` and `backward` by precision (float32 under matmul precision `highest` and `default`,
    bfloat16). `leaks` counts gradients that should be zero and are not, of `leaks_tried` queries.
    """

    backend: str
    use: str
    case: str
    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    leaks: int = 0
    leaks_tried: int = 0
    refused: str | None = None

    @property
    def fault(self) -> str | None:
        """What differs; None where all is well, or the backend refused."""
        for name, errors in (("values", self.forward), ("gradients", self.backward)):
            for precision, error in errors.items():
                limit = LIMITS[precision]
                if limit is not None and not error <= limit:  # a NaN is a fault
                    return f"{name} differ by {error:.0e} ({precision})"
        if self.leaks:
            return f"{self.leaks} gradients leak"
        return None if self.forward or self.refused else "nothing was computed"


def verify(
    backends: Iterable[str],
    sizes: Sizes,
    *,
    uses: Iterable[str] = USES,
    programs: Iterable[str] = PROGRAMS,
    precisions: Iterable[str] = tuple(LIMITS),
) -> Iterator[Cell]:
    """Runs each backend in each use and mask; a cell is given as soon as it is known.

    Leaks are looked for under the first precision that it serves.

    Raises:
        UserError: there is no such backend.
    """
    backends, precisions = tuple(backends), tuple(precisions)
    for backend in backends:
        if backend != "auto":
            find_backend(backend)
    for use, program, backend in itertools.product(uses, programs, backends):
        yield from _cells(backend, use, program, sizes, precisions)


def _cells(
    backend: str, use: str, program: str, sizes: Sizes, precisions: tuple[str, ...]
) -> Iterator[Cell]:
    names = ROWS if program == "plain" else (program,)
    cells = {name: Cell(backend, use, name) for name in names}
    refused, watched = None, _watched(sizes.length)
    for precision in precisions:
        problem = _problem(use, program, sizes, precision == "bfloat16")
        run = _compiled(backend, sizes.split)
        with jax.default_matmul_precision("highest" if precision == "highest" else "default"):
            try:
                actual = run(problem)
            except Unserved as error:
                refused = error.why
                continue
            queries, watched = watched, []
            leaks_B = _leaks(problem, run, queries)
        expected = _reference(use, program, sizes, precision == "bfloat16")
        for name, cell in cells.items():
            rows = slice(ROWS.index(name), None, len(ROWS)) if name in ROWS else slice(None)
            cells[name] = replace(
                cell,
                forward=cell.forward | {precision: _error(actual[:1], expected[:1], rows)},
                backward=cell.backward | {precision: _error(actual[1:], expected[1:], rows)},
                leaks=cell.leaks + int(leaks_B[rows].sum()),
                leaks_tried=cell.leaks_tried + len(queries),
            )
    for cell in cells.values():
        yield cell if cell.forward else replace(cell, refused=refused)


@struct.dataclass
class _Problem:
    q: Float[Array, "B T H K"]
    k: Float[Array, "B S G K"]
    v: Float[Array, "B S G U"]
    bias: Any
    cotangent: Float[Array, "B T H U"]
    mask: Mask


@struct.dataclass
class _Relative:
    """A learned bias by head and distance, as T5's are."""

    table: Float[AnyArray, "H R"]

    def __call__(self, q_positions: Int[Array, "B T"], k_positions: Int[Array, "B S"]) -> Array:
        distance_BTS = q_positions[:, :, None] - k_positions[:, None, :]
        bias_HBTS = self.table[:, distance_BTS + self.table.shape[1] // 2]
        return jnp.moveaxis(bias_HBTS, 0, 1)


@functools.lru_cache(maxsize=4)
def _problem(use: str, program: str, sizes: Sizes, low: bool) -> _Problem:
    B, T, H, K = sizes.rows, sizes.length, sizes.heads, sizes.d_k
    S = sizes.key_length if use == "cross" else T
    G = _groups(sizes) if program == "grouped heads" else H
    U = K + 8 if program == "d_k ≠ d_v" else sizes.d_v
    keys = jax.random.split(jax.random.key(0), 5)
    dtype = jnp.bfloat16 if low else jnp.float32

    def normal(index: int, *shape: int) -> Array:
        return jax.random.normal(keys[index], shape, jnp.float32).astype(dtype)

    bias = None
    if program == "bias":
        # A number for each distance: fewer would each have a gradient summed over millions of
        # pairs, of which float32 keeps no more than four digits, in the reference as elsewhere.
        bias = _Relative(jax.random.normal(keys[4], (H, 2 * max(T, S) + 1)))
    mask = _mask(use, program, B, T, S)
    arrays = (normal(0, B, T, H, K), normal(1, B, S, G, K), normal(2, B, S, G, U))
    return _Problem(*arrays, bias, normal(3, B, T, H, U), mask)


def _groups(sizes: Sizes) -> int:
    """The most key/value heads fewer than the heads that divide them, and over the devices."""
    split = sizes.split
    devices = split.count(split.heads) if split else 1
    proper = [G for G in range(1, sizes.heads) if sizes.heads % G == 0]
    return max((G for G in proper if G % devices == 0), default=max(proper, default=1))


def _mask(use: str, program: str, B: int, T: int, S: int) -> Mask:
    """Rows in turn: nothing masked, a padded end, two packed segments, nothing to see at all."""

    def side(length: int, empty: bool) -> tuple[Array, Array]:
        segments, index = np.ones((B, length), np.int32), np.arange(length, dtype=np.int32)
        positions = np.tile(index, (B, 1))
        row, cut = np.arange(B) % len(ROWS), length // 3
        segments[np.ix_(row == 1, index >= length - cut)] = 0
        segments[np.ix_(row == 2, index >= cut)] = 2
        positions[np.ix_(row == 2, index >= cut)] -= cut
        segments[row == 3] = 0 if empty else 1
        return jnp.asarray(segments), jnp.asarray(positions)

    is_causal = use == "decoder self" or program == "causal"
    window = max(T // 5, 2) if program == "window" else None
    if use != "cross":
        return Mask.self_attention(*side(T, True), causal=is_causal, window=window)
    (q_segments, q_positions), (k_segments, k_positions) = side(T, False), side(S, True)
    return Mask(q_segments, k_segments, q_positions, k_positions, is_causal, window)


Results = tuple[Any, ...]  # out, dq, dk, dv, dbias


@functools.lru_cache(maxsize=1)
def _compiled(backend: str, split: Split | None) -> Any:
    """One program a backend; each shape and mask is compiled when it first comes."""

    def run(p: _Problem) -> Results:
        p = jax.tree.map(lambda x: _placed(x, split), p)

        def forward(q: Array, k: Array, v: Array, bias: Any) -> Array:
            return attend(q, k, v, mask=p.mask, bias=bias, backend=backend, split=split)

        out, pull = jax.vjp(forward, p.q, p.k, p.v, p.bias)
        return out, *pull(p.cotangent)

    return jax.jit(run)


def _placed(x: Array, split: Split | None) -> Array:
    """Split as a model's activations are; an axis that does not divide stays whole."""
    if split is None or x.ndim != 4:
        return x
    axes = (split.batch, split.length, split.heads, ())
    divides = [size % split.count(a) == 0 for size, a in zip(x.shape, axes, strict=True)]
    spec = [a or None if fits else None for a, fits in zip(axes, divides, strict=True)]
    sharding = NamedSharding(split.devices, PartitionSpec(*spec))
    return jax.lax.with_sharding_constraint(x, sharding)


@functools.lru_cache(maxsize=4)
def _reference(use: str, program: str, sizes: Sizes, low: bool) -> Results:
    """In float32 on one device, of the very numbers that the backend was given."""
    problem = jax.tree.map(_exact, _problem(use, program, sizes, low))
    with jax.default_matmul_precision("highest"):
        return jax.tree.map(np.asarray, _compiled_reference()(problem))


@functools.cache
def _compiled_reference() -> Any:
    return _compiled.__wrapped__("reference", None)


def _exact(x: Array) -> Array:
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _watched(length: int) -> list[int]:
    """Queries whose gradients are looked at: both ends, and where segments and padding begin."""
    third = length // 3
    return sorted({0, third - 1, third, length // 2, length - third - 1, length - 1} - {-1})


def _leaks(problem: _Problem, run: Any, queries: list[int]) -> Int[np.ndarray, "B"]:
    """Counts, row by row, gradients of a query's output that reach what it may not see."""
    allowed_BTS = np.asarray(problem.mask.dense())
    leaks_B = np.zeros(len(allowed_BTS), int)
    for t in queries:
        only = jnp.zeros_like(problem.cotangent).at[:, t].set(problem.cotangent[:, t])
        out, dq, dk, dv, _ = run(problem.replace(cotangent=only))  # pyright: ignore
        touched_BT = (np.asarray(dq, np.float32) != 0).any((2, 3))
        touched_BS = (np.asarray(dk, np.float32) != 0).any((2, 3))
        touched_BS |= (np.asarray(dv, np.float32) != 0).any((2, 3))
        touched_BT[:, t] &= ~allowed_BTS[:, t].any(-1)  # its own gradient, if it sees anything
        leaks_B += touched_BT.sum(1) + (touched_BS & ~allowed_BTS[:, t]).sum(1)
        leaks_B += (np.asarray(out[:, t], np.float32) != 0).any((1, 2)) & ~allowed_BTS[:, t].any(-1)
    return leaks_B


def _error(actual: Results, expected: Results, rows: slice) -> float:
    """The largest difference in some rows, relative to each array's largest number; or NaN.

    An array that is nothing beside the others (a softmax over one key has no gradient) is held to
    the largest number of them all.
    """
    worst, wanted = 0.0, jax.tree.leaves(expected)
    largest = max(float(np.abs(want).max()) for want in wanted)
    for got, want in zip(jax.tree.leaves(actual), wanted, strict=True):
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        scale = float(np.abs(want).max())
        scale = scale if scale > 1e-2 * largest else largest
        if got.ndim == 4:  # by row; a bias's gradient is of all rows
            got, want = got[rows], want[rows]
        error = float(np.abs(got - want).max()) / scale
        worst = error if not error <= worst else worst
    return worst
