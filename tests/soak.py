"""Trains for very many steps, with checkpoints, evaluations and restarts, and watches what grows.

    python -m tests.soak --steps=100000 --workdir=runs/soak \
        --json=experiments/results/soak.json --png=experiments/results/soak.png

The process's memory, threads and open files and the run directory's files are sampled every two
seconds. A signal stops it from time to time, and the same command goes on. Stopped itself, this
command goes on, too, where it is given the same --workdir. Exit code 1 where something grew: the
memory of the longest stretch by more than 5 % from its second quarter to its last, threads or open
files at all, the run directory's files by more than the logs of the restarts.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.common import record
from tests.support.processes import ROOT, metrics, start

SAMPLES = "soak.samples.jsonl"
FIELDS = ("memory_mib", "threads", "open_files", "run_files")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--restart-every", type=int, default=10_000, help="steps")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(arguments)
    cache = options.workdir.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    run = cache / "run"
    command = (
        *("train", f"--config={ROOT}/experiments/base.py:smoke", f"--workdir={run}"),
        *(f"--config.training.steps={options.steps}", "--config.training.log_every=100"),
        *("--config.training.eval_every=5000", "--config.checkpoints.every=1000"),
    )
    while True:
        first = _step(run)
        # Half of the run in one stretch, to see slow growth; the rest in short ones.
        long = first >= options.steps // 2
        until = options.steps if long else first + options.restart_every
        code = _stretch(start(*command, cache=cache, optimize=True, stderr=None), run, until)
        if code == 0:
            break
        if code != 42:
            return 1
    lines = [json.loads(line) for line in (cache / SAMPLES).read_text("utf-8").split("\n") if line]
    steps = [line["step"] for line in metrics(run) if line["kind"] == "train"]
    result = {
        **record("tests.soak", sys.argv[1:]),
        "steps": options.steps,
        "processes": len({line["process"] for line in lines}),
        "metrics_without_gap": steps == list(range(100, options.steps + 1, 100)),
        **_growth(lines),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if options.png:
        _plot(lines, options.png)
    return int(not result["metrics_without_gap"] or bool(result["grew"]))


def _stretch(process: subprocess.Popen, run: Path, until: int) -> int:
    """One process's life: sampled, and told to stop at a step."""
    told = False
    while process.poll() is None:
        time.sleep(2.0)
        step = _step(run)
        if sample := _sample(process.pid, run):
            line = {"time": time.time(), "process": process.pid, "step": step, **sample}
            with (run.parent / SAMPLES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if step >= until and not told:
            process.send_signal(signal.SIGTERM)
            told = True
    return process.returncode


def _step(run: Path) -> int:
    """The last step that the run has written down."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 100_000))
        lines = file.read().decode(errors="replace").splitlines()
    whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0


def _sample(pid: int, run: Path) -> dict[str, int] | None:
    proc = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":", 1)
            for line in (proc / "status").read_text("ascii").split("\n")
            if ":" in line
        )
        return {
            "memory_mib": int(status["VmRSS"].split()[0]) // 1024,
            "threads": int(status["Threads"]),
            "open_files": len(list((proc / "fd").iterdir())),
            "run_files": sum(path.is_file() for path in run.rglob("*")),
        }
    except (OSError, KeyError):  # it has just ended
        return None


def _growth(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the longest stretch's second and last quarters, and what grew between them."""
    by_process: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        by_process.setdefault(line["process"], []).append(line)
    longest = max(by_process.values(), key=len)
    quarter = len(longest) // 4
    middle = lambda part, field: statistics.median(line[field] for line in part)  # noqa: E731
    early = {field: middle(longest[quarter : 2 * quarter], field) for field in FIELDS}
    late = {field: middle(longest[-quarter:], field) for field in FIELDS}
    allowed = {"memory_mib": 1.05, "threads": 1.0, "open_files": 1.0, "run_files": 1.1}
    grew = [field for field in FIELDS if late[field] > allowed[field] * early[field]]
    return {"samples": len(longest), "second_quarter": early, "last_quarter": late, "grew": grew}


def _plot(lines: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    for axes, field in zip(figure.subplots(len(FIELDS), sharex=True), FIELDS, strict=True):
        axes.plot([line["step"] for line in lines], [line[field] for line in lines], ".", ms=2)
        axes.set(ylabel=field.replace("_", " "), ylim=(0, None))
    axes.set_xlabel("step")
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
