"""How long one waits for the first thing to happen: real processes, from the command on.

    python -m experiments.benchmarks.start --json=experiments/results/start.json

help        `transformer --help`
train       `transformer train` of casa roja, to the end of its first step: a new run of an
            experiment that ran before, so that its tokenizer, tokens and programs are kept
translate   `transformer translate` of one sentence, from a run that has ended, all of the process

A round is one of each; what is given are medians. Each row has the number of programs that its
process came by, and how many of them it had to compile: none, where the cache is warm.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarks.common import record
from transformer.files import write_json

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "transformer")
GOALS = {"help": 0.5, "train": 10.0, "translate": 3.0}  # seconds
FIRST_STEP = re.compile(r"step 1/")
PROGRAMS = re.compile(r"programs: (\d+) compiled, (\d+) from the cache, in ([\d.]+) s")


@dataclass(frozen=True)
class Start:
    """What a process did."""

    seconds: float  # from its start to its first step, or its end
    compiled: int = 0  # programs
    cached: int = 0  # programs that were read instead

    @classmethod
    def of(cls, *arguments: str, cache: Path, given: str = "") -> "Start":
        """Starts the command with these arguments and follows what it says.

        Raises:
            RuntimeError: it fails; the text is what it said last.
        """
        environment = {
            # The compilation cache, too, is to be this benchmark's own.
            **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": str(ROOT),
        }
        began = time.perf_counter()
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert process.stdin and process.stderr
        process.stdin.write(given)
        process.stdin.close()
        said, stepped = [], None
        for line in process.stderr:
            if stepped is None and FIRST_STEP.match(line):
                stepped = time.perf_counter() - began
            said.append(line)
        if process.wait():
            raise RuntimeError(f"transformer {' '.join(arguments)}: {''.join(said[-3:])}")
        ended = time.perf_counter() - began
        counted = PROGRAMS.search("".join(said))
        numbers = map(int, counted.groups()[:2]) if counted else (0, 0)
        return cls(ended if stepped is None else stepped, *numbers)


def measure(config: str, sentence: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each of the three, and the first run of all, whose caches are cold."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"

        def train(name: object) -> Start:
            arguments = (f"--config={config}", f"--workdir={folder}/{name}")
            once = ("--config.training.steps=1", "--config.training.log_every=1")
            return Start.of("train", *arguments, *once, cache=cache)

        def translate() -> Start:
            return Start.of("translate", f"--workdir={folder}/cold", cache=cache, given=sentence)

        rows = [_row("train, nothing kept", [train("cold")])]
        translate()
        starts: dict[str, list[Start]] = {what: [] for what in GOALS}
        for number in range(rounds):
            starts["help"].append(Start.of("--help", cache=cache))
            starts["train"].append(train(number))
            starts["translate"].append(translate())
    return [*(_row(what, found) for what, found in starts.items()), *rows]


def _row(what: str, starts: Sequence[Start]) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": statistics.median(start.seconds for start in starts),
        "slowest": max(start.seconds for start in starts),
        "goal": GOALS.get(what),
        "compiled": max(start.compiled for start in starts),
        "cached": max(start.cached for start in starts),
    }


def main(arguments: list[str]) -> None:
    """Measures and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.start")
    parser.add_argument("--config", default=str(ROOT / "experiments" / "casa_roja.py"))
    parser.add_argument("--sentence", default="la casa roja")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = measure(options.config, options.sentence + "\n", options.rounds)
    for row in rows:
        goal = f" (goal: {row['goal']} s)" if row["goal"] else ""
        print(
            f"{row['what']}: {row['seconds']:.2f} s{goal}, {row['slowest']:.2f} s at most; "
            f"programs: {row['compiled']} compiled, {row['cached']} from the cache"
        )
    if options.json:
        described = record("experiments.benchmarks.start", arguments)
        write_json(options.json, {**described, "rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
