"""How fast each attention backend is on this machine, beside PyTorch's.

    python -m experiments.benchmarks.attention --json=FILE --png=FILE                    (a GPU)
    python -m experiments.benchmarks.attention --lengths 128 512 --tokens=1024           (2 cores)

Self-attention of whole rows, forward alone and forward with backward, by length; rows x length
stays the same. bfloat16, on a CPU float32. Where PyTorch is installed, its
`torch.nn.functional.scaled_dot_product_attention` runs beside, in a process of its own.

A figure is the median of several repeats. Contenders take turns in each round, one at a time, so
that what disturbs the machine disturbs them alike. Compiling and first calls are not counted.
FLOPs are those of the two products: 2 · 2·B·H·T·S·d forward, half of that where attention is
causal, and 2.5 times as many backward (five products), whatever a backend really computes.

A contender that cannot serve, would not fit or fails has a line that says why.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp

from experiments.benchmarks.common import new_figure, record
from transformer.attention import BACKENDS, Mask
from transformer.attention.backends import ACROSS, Backend, Call, find_backend
from transformer.errors import UserError
from transformer.inspection.figures import write_figure
from transformer.run_directory import write_json

PASSES = ("forward", "forward + backward")
LENGTHS = (128, 512, 2_048, 8_192, 32_768, 65_536)
LEAST = 0.02  # seconds that a repeat takes: shorter calls are made several times
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Case:
    """Self-attention of so many rows of so many positions, and whether with its backward pass."""

    rows: int
    length: int
    heads: int
    d: int
    dtype: str
    causal: bool
    backward: bool

    @property
    def flops(self) -> float:
        forward = 2 * 2 * self.rows * self.heads * self.length**2 * self.d
        return forward * (0.5 if self.causal else 1.0) * (3.5 if self.backward else 1.0)


class Skipped(Exception):
    """A contender has no figure for a case; the message says why."""


Timed = Callable[[int], float]  # seconds that so many calls take; Skipped if they fail


@contextlib.contextmanager
def failures_as_skipped() -> Iterator[None]:
    """Out of memory, or a kernel that the library will not run: no reason to stop."""
    try:
        yield
    except RuntimeError as error:  # JAX's and PyTorch's own are kinds of it
        raise Skipped(f"fails: {str(error).partition(chr(10))[0][:120]}") from error


def seconds_of(call: Callable[[], Any], calls: int, wait: Callable[[Any], Any]) -> float:
    """`wait` returns when the device has done what led to a call's result."""
    result = None
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
    wait(result)
    return time.perf_counter() - start


# JAX ----------------------------------------------------------------------------------------------


def prepare(backend: str, case: Case) -> Timed:
    """Compiles a backend for a case and calls it once.

    Raises:
        Skipped: it cannot serve the case, does not fit into memory, or fails.
    """
    row, platform = find_backend(backend), jax.default_backend()
    x = jax.ShapeDtypeStruct((case.rows, case.length, case.heads, case.d), case.dtype)
    segments = jnp.ones(x.shape[:2], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(case.length, dtype=jnp.int32), x.shape[:2])
    mask_of = functools.partial(Mask.self_attention, causal=case.causal)
    call = Call(x, x, x, mask_of(segments, positions), None, None, None, platform)
    why = _unsuitable(row, call)
    if why is not None:
        raise Skipped(why)

    def forward(segments: Any, positions: Any, q: Any, k: Any, v: Any) -> Any:
        mask = mask_of(segments, positions)
        return row.compute(Call(q, k, v, mask, None, None, None, platform))

    def both(segments: Any, positions: Any, q: Any, k: Any, v: Any, do: Any) -> Any:
        o, pull = jax.vjp(functools.partial(forward, segments, positions), q, k, v)
        return o, pull(do)

    function, given = (both, 4) if case.backward else (forward, 3)
    with failures_as_skipped():
        compiled = jax.jit(function).lower(segments, positions, *[x] * given).compile()
        plan = compiled.memory_analysis()
        sizes = (plan.temp_size_in_bytes, plan.argument_size_in_bytes, plan.output_size_in_bytes)
        if sum(sizes) > memory():
            raise Skipped(f"needs {sum(sizes) / GIB:,.1f} GiB of {memory() / GIB:,.1f}")
        arrays = segments, positions, *_inputs(x.shape, case.dtype)[:given]
        run = functools.partial(compiled, *arrays)
        jax.block_until_ready(run())

    def timed(calls: int) -> float:
        with failures_as_skipped():
            return seconds_of(run, calls, jax.block_until_ready)

    return timed


def _unsuitable(row: Backend, call: Call) -> str | None:
    """Why not even to compile it."""
    why = row.unsupported(call)
    if row.name.partition(":")[0] in ("splash", *ACROSS):
        why = why or row.inadvisable(call)  # interpreted; another backend by another name
    # Before the compiler sees it, which tries out products and allocates what they take.
    if why is None and row.name in ("xla", "reference") and call.scores_bytes > memory():
        why = f"its scores need {call.scores_bytes / GIB:,.1f} GiB of {memory() / GIB:,.1f}"
    return why


@functools.cache
def memory() -> float:
    """Bytes on the device that JAX may use; of a CPU's, half."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


@functools.lru_cache(1)
def _inputs(shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, ...]:
    """q, k, v and the derivative by the output."""
    keys = jax.random.split(jax.random.key(0), 4)
    return tuple(jax.random.normal(key, shape, dtype) for key in keys)


# PyTorch ------------------------------------------------------------------------------------------


class PyTorch:
    """PyTorch in a process of its own, which waits for its turn and ends with the context."""

    def __init__(self, platform: str):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, platform), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def prepare(self, case: Case) -> Timed:
        """As `prepare` of JAX. One case at a time: the next one replaces it."""
        self._ask(case)
        return self._ask

    def _ask(self, request: Case | int) -> Any:
        try:
            self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise Skipped("its process ended") from error
        if isinstance(answer, str):
            raise Skipped(answer)
        return answer


def _serve(connection: Any, platform: str) -> None:
    """The process: a case is made ready, a number of calls is timed; a text says why not."""
    import torch  # pyright: ignore[reportMissingImports]

    attention = torch.nn.functional.scaled_dot_product_attention
    device = {"gpu": "cuda"}.get(platform, platform)
    inputs: list[Any] = []
    causal = backward = False

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def call() -> None:
        q, k, v, do = inputs
        if backward:
            torch.autograd.grad(attention(q, k, v, is_causal=causal), (q, k, v), do)
        else:
            with torch.no_grad():
                attention(q, k, v, is_causal=causal)

    def prepare(case: Case) -> None:
        nonlocal inputs, causal, backward
        causal, backward = case.causal, case.backward
        inputs = []  # the last case's go first
        shape = (case.rows, case.heads, case.length, case.d)
        dtype = getattr(torch, case.dtype)
        inputs = [torch.randn(shape, device=device, dtype=dtype) for _ in range(4)]
        for x in inputs[:3]:
            x.requires_grad_(backward)

    def answer_to(request: Case | int) -> float | str:
        try:
            with failures_as_skipped():
                if isinstance(request, Case):
                    prepare(request)
                return seconds_of(call, 1 if isinstance(request, Case) else request, wait)
        except Skipped as error:
            return str(error)

    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        answer = answer_to(request)
        if device == "cpu":
            time.sleep(0.3)  # its threads spin for a while and would slow whoever is next
        connection.send(answer)


# The run ------------------------------------------------------------------------------------------


def measure(
    contenders: dict[str, Callable[[Case], Timed]], case: Case, repeats: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """A row for each contender: its median, or why there is none.

    `repeats` rounds, or those begun within `seconds`, at least one.
    """
    ready: dict[str, tuple[Timed, int]] = {}
    skipped: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name, make in contenders.items():
        try:
            timed = make(case)
            ready[name] = timed, max(1, round(LEAST / timed(1)))
        except Skipped as error:
            skipped[name] = str(error)
    start = time.perf_counter()
    for number in range(repeats):
        if number and time.perf_counter() - start > seconds:
            break
        for name, (timed, calls) in ready.items():
            if name not in skipped:
                try:
                    times[name].append(timed(calls) / calls)
                except Skipped as error:
                    skipped[name] = str(error)
    for name in contenders:
        row = {"length": case.length, "rows": case.rows, "pass": PASSES[case.backward]}
        row["backend"] = name
        if name in skipped:
            yield {**row, "why": skipped[name]}
            continue
        median = statistics.median(times[name])
        yield {
            **row,
            "milliseconds": 1e3 * median,
            "tokens_per_second": case.rows * case.length / median,
            "tflops": case.flops / median / 1e12,
            "repeats": len(times[name]),
        }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*("length", "pass", "backend"))
    for name in ("ms", "tokens/s", "TFLOP/s"):
        table.add_column(name, justify="right")
    table.add_column("why not")
    last = None
    for row in rows:
        if last not in (None, (row["length"], row["pass"])):
            table.add_section()
        last = (row["length"], row["pass"])
        figures = ["", "", "", row["why"]] if "why" in row else [
            f"{row['milliseconds']:,.3f}", f"{row['tokens_per_second']:,.0f}",
            f"{row['tflops']:,.3f}", "",
        ]  # fmt: skip
        table.add_row(f"{row['length']:,}", row["pass"], row["backend"], *figures)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """TFLOP/s by length: a panel for each pass, a line for each backend."""
    figure = new_figure(len(PASSES))
    measured = [row for row in rows if "why" not in row]
    names = dict.fromkeys(row["backend"] for row in measured)
    lengths = sorted({row["length"] for row in measured})
    for axes, which in zip(figure.axes, PASSES, strict=True):
        for name in names:
            mine = [row for row in measured if (row["backend"], row["pass"]) == (name, which)]
            lines = [row["length"] for row in mine], [row["tflops"] for row in mine]
            axes.plot(*lines, "s--" if name == "pytorch" else "o-", label=name)
        axes.set(title=which, xlabel="length", ylabel="TFLOP/s")
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, labels=[f"{n:,}" for n in lengths], rotation=30)
        axes.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False, fontsize=9)
    write_figure(path, figure)


def main(arguments: Sequence[str]) -> None:
    """Raises UserError where the flags do not go together."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, names = parser.add_argument, [row.name for row in BACKENDS]
    add("--lengths", type=int, nargs="+", default=LENGTHS, help="positions of a row")
    add("--tokens", type=int, default=65_536, help="rows x length")
    add("--heads", type=int, default=16)
    add("--d", type=int, default=64, help="of a head")
    add("--causal", action=argparse.BooleanOptionalAction, default=True)
    add("--backends", nargs="+", default=[*names, "pytorch"], help="of the table, or pytorch")
    add("--repeats", type=int, default=10, help="rounds of each length and pass")
    add("--seconds", type=float, default=5.0, help="begin no more rounds after so long")
    add("--json", type=Path, metavar="FILE")
    add("--png", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for length in options.lengths:
        if options.tokens % length:
            raise UserError(f"--tokens={options.tokens} is not a multiple of length {length}")

    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.8")  # the rest is PyTorch's
    platform = jax.default_backend()
    dtype = "float32" if platform == "cpu" else "bfloat16"
    shape = {"heads": options.heads, "d": options.d, "dtype": dtype, "causal": options.causal}
    settings = {"tokens": options.tokens, **shape, "pytorch": None}
    contenders: dict[str, Callable[[Case], Timed]] = {}
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        for name in options.backends:
            if name != "pytorch":
                contenders[find_backend(name).name] = functools.partial(prepare, name)
            elif importlib.util.find_spec("torch"):
                contenders[name] = stack.enter_context(PyTorch(platform)).prepare
                settings["pytorch"] = importlib.metadata.version("torch")
            else:
                print("PyTorch is not installed, so it is not measured")
        for length, backward in itertools.product(options.lengths, (False, True)):
            case = Case(options.tokens // length, length, **shape, backward=backward)
            rows += measure(contenders, case, options.repeats, options.seconds)
            if options.json:  # each time, so that a run cut short leaves what it has
                module = "experiments.benchmarks.attention"
                write_json(options.json, record(module, arguments, **settings, rows=rows))
    show(rows)
    if options.png:
        draw(options.png, rows)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
