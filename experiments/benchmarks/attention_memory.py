"""What attention costs in memory, read from compiled programs; nothing is computed.

    python -m experiments.benchmarks.attention_memory --json=FILE --png=FILE     (3 minutes)

Three questions, each answered by the temporary memory that XLA plans for a device
(`memory_analysis().temp_size_in_bytes`; arguments and results are not in it), on virtual CPU
devices:

    shards     a training step of one long sequence, its positions split over n devices by a ring:
               activations must fall as 1/n (at most 1.15/n of one device's)
    attention  attention alone, forward and backward, by length: `chunked` must grow with the
               length, `xla` grows with its square
    step       the same of a whole training step, where attention runs inside the loop over layers
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks.common import new_figure, record
from transformer import testing
from transformer.attention import Mask, attend
from transformer.config import AttentionConfig, ModelConfig
from transformer.inspection.figures import write_figure
from transformer.models import build_model
from transformer.run_directory import write_json
from transformer.training.step import StateFactory, make_train_step

BOUND = 1.15  # times 1/n: what a device may need of what one alone needs
MIB = 2**20
BACKENDS = ("chunked", "xla")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A model whose activations outweigh its parameters."""

    layers: int = 6  # of the encoder, and of the decoder
    d_model: int = 64
    heads: int = 4

    def model(self, backend: str) -> ModelConfig:
        return testing.model_config(
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            d_model=self.d_model,
            d_ff=4 * self.d_model,
            heads=self.heads,
            d_k=self.d_model // self.heads,
            d_v=self.d_model // self.heads,
            vocab_size=101,
            attention=AttentionConfig(backend=backend),
        )


def step_bytes(sizes: Sizes, backend: str, length: int, shards: int = 1) -> int:
    """Temporary memory of each device in one training step: Adam, dropout, fp32, no remat.

    The batch is one pair of sentences, source and target both of this many positions.
    """
    layout = testing.layout(sequence=shards)
    model, optimizer = build_model(sizes.model(backend)), optax.adam(1e-3)
    state = StateFactory(model, optimizer, layout, testing.TRAINING).abstract
    schedule = optax.constant_schedule(1e-3)
    step = make_train_step(model, optimizer, schedule, testing.TRAINING, testing.DIVERGENCE)
    split = layout.sharding(("batch", "length"))
    # By its leaves, since a Batch holds arrays only.
    like = testing.random_batch(vocab_size=5, rows=1, source_length=2, target_length=2)
    leaves, tree = jax.tree.flatten(like)
    leaves = [jax.ShapeDtypeStruct((1, length), x.dtype, sharding=split) for x in leaves]

    def whole(state: Any, leaves: list[Any]) -> Any:
        return step(state, tree.unflatten(leaves))

    return _temporary(layout.jit(whole, donate_argnums=0).lower(state, leaves))


def attention_bytes(sizes: Sizes, backend: str, length: int) -> int:
    """Temporary memory of causal self-attention, forward and backward, of one sequence in fp32."""
    heads = (1, length, sizes.heads, sizes.d_model // sizes.heads)

    def forward(q: Any, k: Any, v: Any, segments: Any, positions: Any) -> Any:
        mask = Mask.self_attention(segments, positions, causal=True)
        return attend(q, k, v, mask=mask, backend=backend)

    def both(q: Any, k: Any, v: Any, segments: Any, positions: Any, do: Any) -> Any:
        _, pull = jax.vjp(lambda q, k, v: forward(q, k, v, segments, positions), q, k, v)
        return pull(do)

    x = jax.ShapeDtypeStruct(heads, jnp.float32)
    row = jax.ShapeDtypeStruct(heads[:2], jnp.int32)
    return _temporary(jax.jit(both).lower(x, x, x, row, row, x))


def _temporary(lowered: Any) -> int:
    return lowered.compile().memory_analysis().temp_size_in_bytes


def by_shards(sizes: Sizes, length: int, shards: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A row for each number of devices; the first, one device, is what the others are held to.

    One device runs the kernel that the ring runs on each: `chunked`.
    """
    alone = step_bytes(sizes, "chunked", length)
    for n in shards:
        needs = alone if n == 1 else step_bytes(sizes, "ring:chunked", length, n)
        yield {"shards": n, "bytes": needs, "share": needs / alone, "bound": BOUND / n}


def by_length(what: str, sizes: Sizes, lengths: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A row for each backend and length, with the growth since the last length: 2 is linear."""
    measure = {"attention": attention_bytes, "step": step_bytes}[what]
    for backend in BACKENDS:
        last = None
        for length in lengths:
            needs = measure(sizes, backend, length)
            growth = needs / last if last else None
            yield {"backend": backend, "length": length, "bytes": needs, "growth": growth}
            last = needs


def show(results: dict[str, list[dict[str, Any]]], sizes: Sizes, length: int) -> None:
    """The tables, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("devices", "MiB each", "of one", "bound", title=_titles(sizes, length)["shards"])
    for row in results["shards"]:
        held = "" if row["share"] <= row["bound"] else "  exceeded"
        table.add_row(
            f"{row['shards']}",
            f"{row['bytes'] / MIB:,.1f}",
            f"{row['share']:.4f}",
            f"{row['bound']:.4f}{held}",
        )
    console.print(table)
    for what in ("attention", "step"):
        table = Table("backend", "length", "MiB", "growth", title=_titles(sizes, length)[what])
        for row in results[what]:
            growth = f"x {row['growth']:.2f}" if row["growth"] else ""
            needs = f"{row['bytes'] / MIB:,.1f}"
            table.add_row(row["backend"], f"{row['length']:,}", needs, growth)
        console.print(table)


def _titles(sizes: Sizes, length: int) -> dict[str, str]:
    layers = f"{sizes.layers} + {sizes.layers} layers, d_model {sizes.d_model}"
    return {
        "shards": f"Training step of {length:,} positions ({layers}), memory of each device",
        "attention": f"Attention alone, forward and backward, {sizes.heads} heads, by length",
        "step": f"Training step on one device ({layers}), by length",
    }


def draw(path: Path, results: dict[str, list[dict[str, Any]]], sizes: Sizes, length: int) -> None:
    """Both questions side by side: memory by devices, and by length."""
    figure = new_figure(2)
    left, right = figure.axes
    rows = results["shards"]
    shards = [row["shards"] for row in rows]
    needs = [row["bytes"] / MIB for row in rows]
    left.plot(shards, needs, "o-", color="C0", label="ring")
    left.plot(shards, [needs[0] * BOUND / n for n in shards], ":", color="C7", label="1.15 / n")
    left.set(xlabel="devices along the sequence", ylabel="temporary memory of each, MiB")
    left.set_title(f"Training step of {length:,} positions", fontsize=11)
    left.set_xscale("log", base=2)
    left.set_xticks(shards, labels=map(str, shards))
    for color, backend in zip(("C0", "C3"), BACKENDS, strict=True):
        for what, style in (("step", "o-"), ("attention", "s--")):
            mine = [row for row in results[what] if row["backend"] == backend]
            label = f"{backend}, {'whole step' if what == 'step' else 'attention alone'}"
            values = [row["bytes"] / MIB for row in mine]
            right.plot([row["length"] for row in mine], values, style, color=color, label=label)
    lengths = sorted({row["length"] for what in ("attention", "step") for row in results[what]})
    right.set(xlabel="length", ylabel="temporary memory, MiB")
    right.set_title("One device, forward and backward", fontsize=11)
    right.set_xscale("log", base=2)
    right.set_xticks(lengths, labels=[f"{n:,}" for n in lengths])
    for axes in figure.axes:
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=9)
    write_figure(path, figure)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.attention_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--length", type=int, default=32_768, help="positions split over devices")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8], help="devices")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2**n for n in range(9, 15)])
    for name, size in dataclasses.asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(options.shards))
    sizes = Sizes(options.layers, options.d_model, options.heads)
    results = {
        "shards": list(by_shards(sizes, options.length, options.shards)),
        "attention": list(by_length("attention", sizes, options.lengths)),
        "step": list(by_length("step", sizes, options.lengths)),
    }
    show(results, sizes, options.length)
    if options.json:
        settings = {"length": options.length, **dataclasses.asdict(sizes)}
        write_json(
            options.json,
            record("experiments.benchmarks.attention_memory", arguments, **settings, **results),
        )
    if options.png:
        draw(options.png, results, sizes, options.length)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
