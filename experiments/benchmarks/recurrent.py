"""How fast our RNN, GRU and LSTM train, beside PyTorch's of the same size.

    python -m experiments.benchmarks.recurrent --json=experiments/results/recurrent.json

A call is forwards and backwards through the layers alone: the gradients of all parameters and of
the input. The two take turns in one run; a row's ratio is the median over rounds of theirs to ours.
PyTorch is installed by itself, once, into an environment of its own.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from experiments.benchmarks.common import record
from experiments.benchmarks.peers import Missing, Peer, environment
from transformer import testing
from transformer.files import write_json
from transformer.models.recurrent.cells import CELLS
from transformer.models.recurrent.layer import Layer, run_layer, zeros
from transformer.sharding import Layout

TORCH = ("torch==2.13.0+cpu numpy", "torch numpy")  # the plain one brings GPU libraries
SIZES = ((128, 24, 256, 1), (64, 32, 512, 2), (64, 32, 1000, 2))  # rows, length, width, layers


class Stack(nn.Module):
    """As many layers as PyTorch's, in one direction."""

    family: str
    layers: int
    unroll: int

    @nn.compact
    def __call__(self, x_TBD: jax.Array) -> jax.Array:
        (_, B, D), config = x_TBD.shape, testing.model_config(family=self.family)
        for _ in range(self.layers):
            own = Layer(config, D, D).weights(x_TBD.dtype)
            init = zeros(CELLS[self.family], B, D)
            _, x_TBD = run_layer(
                CELLS[self.family], own, x_TBD, init, None, None, unroll=self.unroll
            )
        return x_TBD


def prepare(case: dict[str, Any], unroll: int) -> Callable[[int], float]:
    """Compiles a case; what it gives takes a number of calls and says their seconds."""
    layout = Layout.single()
    stack = Stack(case["family"], case["layers"], unroll)
    shape = case["length"], case["rows"], case["width"]
    x, cotangent = (jax.random.normal(jax.random.key(i), shape) for i in range(2))
    params = nn.unbox(layout.jit(stack.init)(jax.random.key(2), x))

    @layout.jit
    def step(params: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        return jax.vjp(stack.apply, params, x)[1](cotangent)

    def calls(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            out = step(params, x, cotangent)
        jax.block_until_ready(out)
        return time.perf_counter() - start

    calls(1)
    return calls


def measure(
    ours: Callable[[int], float], theirs: Callable[[int], float], rounds: int
) -> dict[str, float]:
    """Medians of the milliseconds of a call, and of the rounds' ratios."""
    calls = max(1, round(0.5 / max(ours(2) / 2, 1e-4)))
    theirs(1)
    pairs = [(ours(calls) / calls, theirs(calls) / calls) for _ in range(rounds)]
    median = lambda values: statistics.median(values)  # noqa: E731
    return {
        "ours_ms": 1e3 * median(a for a, _ in pairs),
        "pytorch_ms": 1e3 * median(b for _, b in pairs),
        "ratio": median(b / a for a, b in pairs),
        "calls": calls,
        "rounds": rounds,
    }


def main(arguments: list[str]) -> None:
    """Measures each family at each size and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.recurrent")
    parser.add_argument("--families", nargs="+", default=["rnn", "gru", "lstm"])
    parser.add_argument("--sizes", nargs="+", help="rows,length,width,layers", default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--unroll", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    sizes = [tuple(map(int, size.split(","))) for size in options.sizes or []] or SIZES
    try:
        python = environment(*TORCH)
    except Missing as error:
        sys.exit(f"error: {error}")
    rows = []
    with Peer(python, Path(__file__).with_name("recurrent_torch.py")) as peer:
        for family in options.families:
            for size in sizes:
                B, T, D, N = size
                case = {"family": family, "rows": B, "length": T, "width": D, "layers": N}
                answer = functools.partial(_ask, peer, case)
                row = {**case, **measure(prepare(case, options.unroll), answer, options.rounds)}
                row["tokens_per_second"] = 1e3 * B * T / row["ours_ms"]
                rows.append(row)
                print(
                    f"{family:4} B{B} T{T} D{D} x {N}: "
                    f"ours {row['ours_ms']:7.1f} ms, PyTorch {row['pytorch_ms']:7.1f} ms, "
                    f"ours is {row['ratio']:.2f} times as fast",
                    flush=True,
                )
    if options.json:
        described = record("experiments.benchmarks.recurrent", arguments)
        write_json(options.json, {**described, "rows": rows})


def _ask(peer: Peer, case: dict[str, Any], calls: int) -> float:
    return peer.ask({**case, "calls": calls})["seconds"]


if __name__ == "__main__":
    main(sys.argv[1:])
