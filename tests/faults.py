"""Kills a real training process again and again, and looks whether anything is lost or different.

    python -m tests.faults --kills=25
    python -m tests.faults --kills=200 --log=experiments/results/faults.jsonl
    python -m tests.faults --kills=25 --store=gs
    python -m tests.faults --kills=2 --store=gs --trouble=busy

A round trains the tiny experiment in a new directory. SIGKILL falls at a moment drawn at random:
before the first checkpoint, while one is being written, or anywhere; the same command starts it
again, until the round's kills are spent and it comes to its end. Then every array of parameters
and optimizer, and every line of metrics.jsonl (which names the batch of every step; `clock` apart)
must be those of a run that nobody disturbed, bit for bit. There is a round at least, also where no
kill is asked for.

With --store=gs the directory lies in a bucket, before an emulator of Google's store, and is copied
to a disk to be compared with a run that was never in one. A killed owner is waited for until its
term is over: that is 5 s here in place of 30. With --trouble the store is in trouble meanwhile, as
`object_stores.trouble` says.

The log says in its first line where it was made, then has a line for each kill (where it fell) and
each round. A log that exists is gone on with: the command can be stopped and started again. Exit
code 1 where a round came out different.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.benchmarks.common import record
from tests.support import object_stores
from tests.support.places import InBucket, OnDisk, Place
from tests.support.processes import TINY, metrics, run, start
from transformer import files

STEPS, FIRST = 240, 20  # in all; at the first checkpoint
COMMAND = (
    "train",
    TINY,
    f"--config.training.steps={STEPS}",
    "--config.training.log_every=1",
    "--config.training.eval_every=80",
    f"--config.checkpoints.every={FIRST}",
)
ROUND = ("before the first", "saving", "saving", "anywhere", "saving")  # what its kills aim at


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--log", type=Path, help="JSON lines (default: none kept)")
    parser.add_argument("--seed", type=int, default=0, help="of where the kills fall")
    parser.add_argument("--store", choices=("disk", "gs"), default="disk")
    parser.add_argument("--trouble", choices=("busy", "slow", "lost"), default="")
    options = parser.parse_args(arguments)
    if options.trouble and options.store == "disk":
        parser.error("--trouble is a bucket's: give --store=gs")
    before = _read(options.log) or [record("tests.faults", sys.argv[1:])]
    kills = [line for line in before if "kill" in line]
    rounds = [line for line in before if "identical" in line]
    # A round that was broken off is begun anew: its kills do not count.
    kills = kills[: sum(line["kills"] for line in rounds)]
    if options.log:
        lines = [before[0], *_merge(kills, rounds)]
        files.write(options.log, "".join(json.dumps(line) + "\n" for line in lines))

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)
        if options.log:
            with options.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(object_stores.google()) if options.store == "gs" else None
        expected = cache / "undisturbed"
        code, _, errors = run(*COMMAND, f"--workdir={expected}", cache=cache)
        if code:
            sys.exit(errors)
        while len(kills) < options.kills or not rounds:
            draw = random.Random(f"{options.seed} {len(rounds)}")
            place = InBucket(store, cache) if store else OnDisk(cache / "disturbed")
            aims = ROUND[: options.kills - len(kills)]
            with contextlib.ExitStack() as troubled:
                if store:
                    troubled.enter_context(
                        object_stores.trouble(store.faults, options.trouble, draw)
                    )
                done = _disturbed(place, cache, aims, draw, len(kills), say)
                actual = place.brought(cache / f"brought-{len(rounds)}")
            found = differences(expected, actual)
            rounds.append({"round": len(rounds) + 1, "kills": len(done), "identical": not found})
            say({**rounds[-1], **({"differences": found[:20]} if found else {})})
            kills += done
            if aims and not done:
                sys.exit("no kill fell before the run had ended: is the machine that fast?")
            place.remove()
    where = {place: sum(kill["fell"] == place for kill in kills) for place in PLACES}
    good = [line["kills"] for line in rounds if line["identical"]]
    print(
        f"{sum(good)} of {len(kills)} kills left no trace; they fell {where}; "
        f"{len(good)} of {len(rounds)} rounds came out as undisturbed"
    )
    return int(len(good) < len(rounds))


PLACES = ("before the first checkpoint", "inside a save", "between saves")


def _disturbed(
    place: Place, cache: Path, aims: tuple[str, ...], draw: random.Random, number: int, say: Any
) -> list[dict[str, Any]]:
    """One round: a run that is killed once for each aim, and then comes to its end."""
    kills = []
    command = (*COMMAND, f"--workdir={place.workdir}")
    options: dict[str, Any] = {"cache": cache, "program": place.program}
    for aim in aims:
        before = place.unfinished()
        process = start(*command, **options, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        _wait(aim, place, process, draw)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:  # it had come to its end already
            break
        kills.append(
            {
                "kill": number + len(kills) + 1,
                "aimed": aim,
                "fell": _where(place, before),
                "after_seconds": round(time.monotonic() - began, 3),
                "last_step": place.last_step(),
                "checkpoints": place.whole(),
            }
        )
        say(kills[-1])
    code, _, errors = run(*command, **options, timeout=1_200)
    if code:
        sys.exit(errors)
    return kills


def _wait(aim: str, place: Place, process: subprocess.Popen, draw: random.Random) -> None:
    """Returns at the moment to kill, or when the process has ended."""
    if aim == "saving":
        # The n-th save from here, and somewhere within it.
        for _ in range(draw.randint(1, 3)):
            before = place.unfinished()
            _poll(process, lambda before=before: place.unfinished() - before, place.pause)
        time.sleep(draw.uniform(0.0, place.saves))
        return
    if aim == "before the first":
        # While it starts, by the clock; or after a step, as a start takes longer here than there.
        step = draw.choice((0, draw.randint(1, FIRST - 4 - place.lag)))
        seconds = 120.0 if step else draw.uniform(0.0, place.starts)
        _poll(process, lambda: step and place.last_step() >= step, place.pause, seconds)
        return
    _poll(process, lambda: False, place.pause, draw.uniform(1.0, 1.0 + 4.0 * place.starts))


def _poll(process: subprocess.Popen, condition: Any, pause: float, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(pause)


def _where(place: Place, before: set[object]) -> str:
    """Where a kill fell, by what it left behind and the one before it had not."""
    if place.unfinished() - before:
        return PLACES[1]
    return PLACES[2] if place.whole() else PLACES[0]


def differences(expected: Path, actual: Path) -> list[str]:
    """What differs between two runs that should be one: names of arrays, lines of metrics."""
    steps = OnDisk(expected).whole()
    step = max(steps)
    wanted, got = arrays(expected, step), arrays(actual, step)
    found = [
        name
        for name in sorted({*wanted, *got})
        if name not in wanted
        or name not in got
        or wanted[name].dtype != got[name].dtype
        or wanted[name].tobytes() != got[name].tobytes()
    ]
    for kept in steps:
        metas = [_meta(run, kept) for run in (expected, actual)]
        found += [f"meta {kept}"] if metas[0] != metas[1] else []
    lines, mine = metrics(expected), metrics(actual)
    both = enumerate(zip(lines, mine, strict=False), 1)
    found += [f"metrics line {number}" for number, (a, b) in both if a != b]
    if len(lines) != len(mine):
        found.append(f"{len(mine)} lines of metrics, not {len(lines)}")
    return found


def _meta(workdir: Path, step: int) -> dict[str, Any] | None:
    """What a checkpoint holds, the digests of its arrays among it, without the clock."""
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    if not path.exists():
        return None
    meta = json.loads(path.read_bytes())
    return {key: value for key, value in meta.items() if key not in ("clock", "seal")}


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, as it lies on disk."""
    found = {}
    for item in ("params", "rest"):
        tree = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(step) / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def _read(log: Path | None) -> list[dict[str, Any]]:
    text = log.read_text("utf-8") if log and log.exists() else ""
    return [json.loads(line) for line in text.split("\n") if line]


def _merge(kills: list[dict], rounds: list[dict]) -> list[dict]:
    """The lines of whole rounds, in the order they were written."""
    lines, rest = [], list(kills)
    for line in rounds:
        lines += [*rest[: line["kills"]], line]
        rest = rest[line["kills"] :]
    return lines


if __name__ == "__main__":
    sys.exit(main())
