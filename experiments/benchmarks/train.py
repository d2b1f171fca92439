"""How fast a training step is, beside PyTorch's: same model, same weights, same batch, in turns.

    python -m experiments.benchmarks.train --json=experiments/results/train.json \\
        --png=experiments/results/train.png
    python -m experiments.benchmarks.train --device=gpu --json=FILE                        (a GPU)

tiny is Transformer-Tiny (experiments/multi30k_en_de_tiny.py), base and big are AIAYN's. A step is
forwards, backwards and Adam's update, with dropout where the paper has it; PyTorch's is written by
hand on torch.nn's layers, on a GPU compiled and in bfloat16, with its fused attention. Before any
update and without dropout the two losses must agree, which is checked. What a row gives are medians
over rounds, of ours and theirs in turns, and the median of the rounds' ratios; tokens are the
target's, padding not counted. A turn's first step, the slower one after a pause, is not timed.
Ours takes huge pages, as `transformer train` does; PyTorch's process is as its users start it.

Where ours spends its time, on CPUs, is what JAX's profiler says of one more step, there and back,
by the parts of the model: milliseconds of instructions and how many there were.

The limit: 3 times the forward pass's FLOPs (2 for each multiply-add of a matrix product, nothing
else) at the rate of a large matrix product; or, if that takes longer, what Adam moves (28 bytes a
parameter: it, two moments and its gradient read, all but the last written) at the rate of a copy.
Both rates are measured in the same run.
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import multi30k_en_de_tiny, wmt14_en_de_base, wmt14_en_de_big
from experiments.benchmarks.common import (
    bars,
    limit_line,
    matrix_rate,
    memory_rate,
    new_figure,
    record,
)
from experiments.benchmarks.peers import Missing, Peer, environment
from experiments.benchmarks.profiled import milliseconds, scopes, show
from transformer import losses
from transformer.batch import Batch, Source, Target
from transformer.config import Config, from_dict
from transformer.files import write_json
from transformer.inspection.figures import write_figure
from transformer.models import FAMILIES, build_model
from transformer.models.transformer.positions import sinusoidal
from transformer.sharding import Layout
from transformer.training.step import StateFactory, make_train_step
from transformer.upstream import cpu

CPU = ("torch==2.13.0+cpu numpy", "torch numpy")  # the plain one brings GPU libraries
GPU = ("torch==2.13.0 numpy", "torch numpy")
MODELS = {
    "tiny": (multi30k_en_de_tiny, 10_000),
    "base": (wmt14_en_de_base, 16_000),
    "big": (wmt14_en_de_big, 36_000),
}
CASES = {  # model, rows, length
    "cpu": (("tiny", 128, 24), ("base", 32, 32)),
    "gpu": tuple((m, 32_768 // n, n) for m in ("base", "big") for n in (64, 256, 1_024)),
}
# Parts of a step: what is found in an instruction's name and scopes, there and back.
PARTS = (
    ("words' scores and loss", r"logits|jvp\(\)"),
    ("layers: products with weights", r"(feed_forward|_heads|_output)/.*dot_general"),
    ("attention: products of activations, softmax", r"(self|cross)_attention/"),
    ("layers stacked, unstacked, copied", r"dynamic_|^(wrapped_|copy|transpose_copy)"),
    ("norms, dropout, residuals, activations", r"EncoderDecoder"),
    ("optimizer", r"^\S+ jit\([^)]*\)/\w+$"),
)
ADAM = 7 * 4  # bytes that it reads and writes for a parameter
PADDED = 10  # of so many rows, one is half as long


@dataclasses.dataclass(frozen=True)
class Case:
    """One model at one shape."""

    model: str
    rows: int
    length: int

    @functools.cached_property
    def config(self) -> Config:
        """The experiment's own, on one device."""
        module, vocabulary = MODELS[self.model]
        config = module.get_config()
        config.data.tokenizer.vocab_size = vocabulary
        return from_dict(config.to_dict())

    @functools.cached_property
    def batch(self) -> Batch:
        """Random words; one row in ten is half padding."""
        random, shape = np.random.default_rng(0), (self.rows, self.length)
        words = random.integers(4, self.config.model.vocab_size, (3, *shape)).astype(np.int32)
        segments = np.ones(shape, np.int32)
        segments[::PADDED, self.length // 2 :] = 0
        positions = np.broadcast_to(np.arange(self.length, dtype=np.int32), shape)
        source, target, labels = words * segments
        weights = segments.astype(np.float32)
        return Batch(
            Source(source, positions, segments),
            Target(target, positions, segments, labels, weights),
        )

    @property
    def tokens(self) -> int:
        return int(self.batch.target.weights.sum())

    @property
    def flops(self) -> float:
        """Of a step, padding included."""
        model = self.config.model
        forward = FAMILIES[model.family].flops_per_token(model, self.length)
        return 3 * self.rows * self.length * forward

    def limit(self, parameters: int, flops: float, bytes: float) -> float:
        """Tokens a second, of so many FLOPs and bytes copied a second: see the module."""
        return self.tokens / max(self.flops / flops, ADAM * parameters / bytes)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Our step, compiled.

    Attributes:
        parameters: how many.
        loss: before any update, without dropout.
        steps: says the seconds of so many.
        scopes: of the compiled program's instructions.
    """

    parameters: int
    loss: float
    steps: Callable[[int], float]
    scopes: Callable[[], dict[str, str]]


def prepare(case: Case, arrays: Path) -> Prepared:
    """Compiles our step and writes weights and batch for the peer."""
    config, layout, model = case.config, Layout.single(), build_model(case.config.model)
    options = config.optimizer.options
    optimizer = optax.adam(1e-3, **options)
    factory = StateFactory(model, optimizer, layout, config.training)
    one = make_train_step(
        model, optimizer, optax.constant_schedule(1e-3), config.training, config.divergence
    )
    step = layout.jit(one, donate_argnums=0)
    state, batch = factory.create(0), jax.device_put(case.batch)
    names = jax.tree_util.tree_leaves_with_path(state.params)
    held = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in names}
    positions = sinusoidal(jnp.arange(case.length)[None], config.model.d_model)[0]
    target = case.batch.target
    held |= {"source": case.batch.source.ids, "target": target.ids, "labels": target.labels}
    np.savez(arrays, allow_pickle=False, **held, positions=np.asarray(positions, np.float32))

    @layout.jit
    def loss(params: Any, batch: Batch) -> jax.Array:
        sums = losses.batch_loss(
            functools.partial(model.apply, {"params": params}),
            batch,
            losses.cross_entropy(config.training.label_smoothing),
            chunks=config.training.loss_chunks,
        )
        return sums.loss / sums.weight

    first = float(loss(state.params, batch))

    def steps(calls: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(calls):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - start

    steps(1)

    def its_scopes() -> dict[str, str]:
        return scopes(layout.jit, one, state, batch, donate_argnums=0)

    return Prepared(sum(x.size for _, x in names), first, steps, its_scopes)


def measure(
    ours: Callable[[int], float], theirs: Callable[[int], float] | None, rounds: int
) -> dict[str, Any]:
    """Medians of the milliseconds of a step, and of the rounds' ratios; `theirs` may be missing."""
    calls = max(3, round(1.0 / max(ours(1), 1e-4)))

    def turn(steps: Callable[[int], float]) -> float:
        steps(1)  # after a pause: slower
        return steps(calls) / calls

    pairs = [(turn(ours), theirs and turn(theirs)) for _ in range(rounds)]
    row: dict[str, Any] = {"ours_ms": 1e3 * statistics.median(a for a, _ in pairs)}
    if theirs is not None:
        row["pytorch_ms"] = 1e3 * statistics.median(b for _, b in pairs if b)
        row["ratio"] = statistics.median(b / a for a, b in pairs if b)
    return row


def run(
    case: Case, peer: Peer | None, rounds: int, device: str, rates: tuple[float, float]
) -> dict[str, Any]:
    """One case: a row of the table.

    Args:
        rates: FLOPs of matrix products and bytes copied, a second.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        ours = prepare(case, arrays)
        row, theirs = {**dataclasses.asdict(case), "loss": ours.loss}, None
        if peer is not None:
            c = case.config
            model = {
                **{key: getattr(c.model, key) for key in ("d_model", "d_ff", "heads", "dropout")},
                "layers": c.model.encoder_layers,
                "smoothing": c.training.label_smoothing,
            }
            where = {"device": "cuda" if device == "gpu" else "cpu", "compile": device == "gpu"}
            try:
                answer = peer.ask({"arrays": str(arrays), "model": model, **where})
                row |= {"pytorch_loss": answer["loss"], "pytorch": answer["version"]}
                tolerance = 2e-2 if device == "gpu" else 1e-4
                if abs(answer["loss"] - ours.loss) > tolerance * ours.loss:
                    raise AssertionError(f"PyTorch's loss is {answer['loss']}, ours is {ours.loss}")
                theirs = lambda calls: peer.ask({"calls": calls})["seconds"]  # noqa: E731
            except Missing as error:
                row["why"] = str(error)
        row |= measure(ours.steps, theirs, rounds)
        if device == "cpu":
            row["where"] = milliseconds(lambda: ours.steps(1), ours.scopes(), PARTS)
    row |= {"rounds": rounds, "tokens_per_second": 1e3 * case.tokens / row["ours_ms"]}
    if "pytorch_ms" in row:
        row["pytorch_tokens_per_second"] = 1e3 * case.tokens / row["pytorch_ms"]
    row["limit_tokens_per_second"] = case.limit(ours.parameters, *rates)
    row["share_of_limit"] = row["tokens_per_second"] / row["limit_tokens_per_second"]
    return row


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Bars of tokens a second, a panel a case, and the limit."""
    figure = new_figure(len(rows))
    for axes, row in zip(figure.axes, rows, strict=True):
        names = {"ours": "tokens_per_second", "PyTorch": "pytorch_tokens_per_second"}
        bars(axes, {name: row[key] for name, key in names.items() if key in row}, ["ours"])
        limit_line(axes, row["limit_tokens_per_second"], "limit")
        title = f"{row['model']}, {row['rows']} rows of {row['length']}"
        axes.set(title=title, ylabel="target tokens a second")
    write_figure(path, figure)


def main(arguments: list[str]) -> None:
    """Measures each case and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.train")
    parser.add_argument("--device", choices=CASES, default="cpu")
    parser.add_argument("--cases", nargs="+", help="model,rows,length", default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(arguments)
    if (jax.default_backend() == "cpu") != (options.device == "cpu"):
        sys.exit(f"error: --device={options.device}, but JAX runs on {jax.default_backend()}")
    named = [case.split(",") for case in options.cases or []]
    cases = [Case(m, int(b), int(t)) for m, b, t in named or CASES[options.device]]
    rates, rows = (matrix_rate(), memory_rate()), []
    print(f"matrix products: {rates[0] / 1e9:,.0f} GFLOP/s; copies: {rates[1] / 1e9:,.1f} GB/s")
    with contextlib.ExitStack() as stack:
        peer = None
        if not options.no_peer:
            try:
                python = environment(*(GPU if options.device == "gpu" else CPU))
            except Missing as error:
                sys.exit(f"error: {error}; --no-peer measures ours alone")
            peer = stack.enter_context(Peer(python, Path(__file__).with_name("train_torch.py")))
        for case in cases:
            row = run(case, peer, options.rounds, options.device, rates)
            rows.append(row)
            print(_line(row), flush=True)
            show(row.get("where", {}))
    if options.json:
        described = record("experiments.benchmarks.train", arguments)
        measured = {"matrix_flops": rates[0], "copied_bytes": rates[1]}
        write_json(options.json, {**described, **measured, "rows": rows})
    if options.png:
        draw(options.png, rows)


def _line(row: dict[str, Any]) -> str:
    ours = (
        f"{row['model']:4} B{row['rows']} T{row['length']}: ours {row['ours_ms']:7.1f} ms, "
        f"{row['tokens_per_second']:,.0f} tokens/s ({row['share_of_limit']:.0%} of the limit)"
    )
    if "ratio" not in row:
        return f"{ours}; PyTorch: {row.get('why', 'not asked')}"
    theirs = f"PyTorch {row['pytorch_ms']:.1f} ms, {row['pytorch_tokens_per_second']:,.0f} tokens/s"
    return f"{ours}; {theirs}; ours is {row['ratio']:.2f} times as fast"


if __name__ == "__main__":
    cpu.ask_for_huge_pages()
    main(sys.argv[1:])
