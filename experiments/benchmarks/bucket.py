"""How much a save into a bucket slows training down, beside one onto a disk.

    python -m experiments.benchmarks.bucket --json=experiments/results/bucket.json

A round is two runs of `transformer train`, one after the other: into a folder of the local disk,
and into a bucket of the emulator that the tests use (`tests/run -m slow` installs it, with all else
that this program needs). The experiment is casa roja with wider layers. Training has the first
core, the store the second, in both.

A save is in flight from the moment at which Orbax begins a checkpoint to the one at which it is
whole, by the checkpoint's own metadata. Both are asked what a step takes in seconds, then and else.
A save onto the disk is over within a step, one into the bucket within several: so `mean_step`, of
all steps with their saves, is the fairer ratio. Ratios are taken within a round, and what is given
are medians of the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.common import record
from tests.support import object_stores
from transformer.files import write_json
from transformer.training import metrics

ROOT = Path(__file__).parents[2]
TRAINING, STORE = 0, 1  # cores
FIRST = 20  # steps that are left out: they compile
OPTIONS = (
    f"--config={ROOT / 'experiments' / 'casa_roja.py'}",
    "--config.model.d_model=256",
    "--config.model.d_ff=1024",
    "--config.data.tokens_per_batch=512",
    "--config.training.minutes=0.0",
    "--config.training.log_every=1",
)
METADATA = "_CHECKPOINT_METADATA"  # Orbax's, of a checkpoint


def transformer(cache: Path, *arguments: str) -> None:
    """Runs the command on the core of training. Raises RuntimeError: it fails."""
    ended = subprocess.run(
        ["taskset", "-c", str(TRAINING), sys.executable, "-m", "transformer", *arguments],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"transformer {' '.join(arguments)}: {ended.stderr[-500:]}")


def saves(workdir: Path) -> list[tuple[float, float]]:
    """When each checkpoint was begun and when it was whole, in seconds since 1970."""
    found = []
    for path in sorted((workdir / "checkpoints").glob(f"*/{METADATA}")):
        made = json.loads(path.read_bytes())
        nanoseconds = made["init_timestamp_nsecs"], made["commit_timestamp_nsecs"]
        found.append(tuple(moment / 1e9 for moment in nanoseconds))
    return found


def steps(workdir: Path) -> tuple[list[float], list[float]]:
    """Seconds of each step with a save in flight, and of each other one."""
    during, between = [], []
    ends = [line["clock"]["time"] for line in metrics.read(workdir) if line["kind"] == "train"]
    intervals = saves(workdir)
    for began, ended in zip(ends[FIRST:], ends[FIRST + 1 :], strict=False):
        saving = any(began < whole and begun < ended for begun, whole in intervals)
        (during if saving else between).append(ended - began)
    return during, between


def measured(workdir: Path) -> dict[str, Any]:
    """What a run, which lies on a disk, took."""
    during, between = steps(workdir)
    size = sum(
        path.stat().st_size
        for path in max((workdir / "checkpoints").glob("*[0-9]")).rglob("*")
        if path.is_file()
    )
    return {
        "step_during": statistics.median(during),
        "mean_step_during": statistics.mean(during),
        "slowest_step_during": max(during),
        "step_between": statistics.median(between),
        "mean_step": statistics.mean([*during, *between]),
        "steps_during": len(during),
        "save": statistics.median(whole - begun for begun, whole in saves(workdir)),
        "checkpoint_bytes": size,
    }


def one_round(cache: Path, number: int, options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Both runs, in an order that alternates; what each took."""
    places = {
        "disk": str(cache / f"disk-{number}"),
        "bucket": f"gs://{object_stores.BUCKET}/runs/{number}",
    }
    for where in sorted(places, reverse=bool(number % 2)):
        transformer(cache, "train", *OPTIONS, *options, f"--workdir={places[where]}")
    brought = cache / f"bucket-{number}"
    transformer(cache, "copy", f"--from={places['bucket']}", f"--to={brought}")
    return {"disk": measured(cache / f"disk-{number}"), "bucket": measured(brought)}


RATIOS = ("step_during", "mean_step_during", "step_between", "mean_step")


def main(arguments: list[str]) -> None:
    """Measures and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.bucket")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=100, help="steps a checkpoint")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    more = (
        f"--config.training.steps={options.steps}",
        f"--config.training.eval_every={options.steps}",
        f"--config.checkpoints.every={options.every}",
        f"--config.checkpoints.keep_last={options.steps}",
    )
    os.sched_setaffinity(0, {STORE})  # the store's, which this process starts
    rows = []
    with tempfile.TemporaryDirectory() as folder, object_stores.google():
        for number in range(options.rounds):
            rows.append(one_round(Path(folder), number, more))
            print(json.dumps(rows[-1]), flush=True)
    ratios = {
        name: statistics.median(row["bucket"][name] / row["disk"][name] for row in rows)
        for name in RATIOS
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3f} times the disk's")
    if options.json:
        described = record("experiments.benchmarks.bucket", arguments)
        write_json(options.json, {**described, "ratios": ratios, "rounds": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
