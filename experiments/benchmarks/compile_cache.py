"""Compares two places for the compiled programs of a run's processes: one folder, or one each.

    python -m experiments.benchmarks.compile_cache --json=experiments/results/compile_cache.json

Two real processes train casa roja on two devices to the end of their first step, which neither
reaches before the other. Each has a disk of its own; their programs lie in a folder of it, or in
one folder of both:

cold        no program is kept
warm        the same run once more
replaced    once more, where the disk of process 1 is a new one

Tokenizer and tokens are prepared. What is given are medians of rounds.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmarks.common import record
from experiments.benchmarks.start import FIRST_STEP, PROGRAM, ROOT
from transformer.files import write_json

PROCESSES = 2
OPTIONS = (
    f"--config={ROOT / 'experiments' / 'casa_roja.py'}",
    "--config.training.steps=1",
    "--config.training.log_every=1",
    f"--config.mesh.data={PROCESSES}",
    f"--config.distributed.processes={PROCESSES}",
    "--config.distributed.enabled=True",
)


def first_step(folder: Path, programs: list[Path]) -> float:
    """Seconds to the first step of a new run, with the folder of each process's programs.

    Raises:
        RuntimeError: a process fails; the text is what it said last.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tempfile.mkdtemp(dir=folder)
    began = time.perf_counter()
    started = [
        subprocess.Popen(
            [
                *(*PROGRAM, "train", *OPTIONS, f"--workdir={run}"),
                f"--config.distributed.coordinator=127.0.0.1:{port}",
                f"--config.distributed.process={process}",
            ],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": str(kept),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if process == 0 else subprocess.DEVNULL,
            text=True,
        )
        for process, kept in enumerate(programs)
    ]
    assert started[0].stderr
    said, seconds = [], 0.0
    for line in started[0].stderr:
        if re.match(FIRST_STEP, line) and not seconds:
            seconds = time.perf_counter() - began
        said.append(line)
    if any([process.wait() for process in started]):
        raise RuntimeError("".join(said[-3:]))
    return seconds


def one_round(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds to the first step by place and state of the programs."""
    seconds = {}
    for place in ("own", "shared"):
        names = [f"{place}-{process if place == 'own' else 'both'}" for process in range(PROCESSES)]
        kept = [folder / name for name in names]
        for path in kept:
            shutil.rmtree(path, ignore_errors=True)
        seconds[place] = {state: first_step(folder, kept) for state in ("cold", "warm")}
        if place == "own":
            shutil.rmtree(kept[1])
        seconds[place]["replaced"] = first_step(folder, kept)
    return seconds


def main(arguments: list[str]) -> None:
    """Measures and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.compile_cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_step(folder, [folder / "first"] * PROCESSES)  # tokenizer and tokens
        rounds = [one_round(folder) for _ in range(options.rounds)]
    medians = {
        place: {state: statistics.median(row[place][state] for row in rounds) for state in states}
        for place, states in rounds[0].items()
    }
    for place, states in medians.items():
        print(f"{place}: {', '.join(f'{state} {s:.1f} s' for state, s in states.items())}")
    if options.json:
        described = record("experiments.benchmarks.compile_cache", arguments)
        write_json(options.json, {**described, "medians": medians, "rounds": rounds})


if __name__ == "__main__":
    main(sys.argv[1:])
