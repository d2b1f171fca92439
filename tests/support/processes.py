"""Real processes for tests: the command line as its users start it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer.training.metrics import read as read_metrics

ROOT = Path(__file__).parents[2]
COMPARISONS = {"compare"}  # of experiments/: all others are one experiment each
EXPERIMENTS = [
    path
    for path in sorted((ROOT / "experiments").glob("*.py"))
    if path.stem not in {"__init__", *COMPARISONS}
]
_started: list[subprocess.Popen] = []
TINY = f"--config={ROOT}/tests/support/tiny.py"
COMMAND = (sys.executable, "-m", "transformer")


def start(
    *arguments: str,
    cache: Path,
    devices: int = 1,
    optimize: bool = False,
    own_programs: bool = False,
    program: Sequence[str] = COMMAND,
    **options: Any,
) -> subprocess.Popen:
    """`python -m transformer ...` from a folder that is not the repository's.

    `optimize` lets XLA take its time to compile; without it that takes half as long. Compiled
    programs are shared with all other tests, or with those of the same `cache` (`own_programs`).
    """
    ours = {"NPROC"} | ({"JAX_COMPILATION_CACHE_DIR"} if own_programs else set())
    own = {k: v for k, v in os.environ.items() if k not in ours}
    environment = {
        **own,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XDG_CACHE_HOME": str(cache / "xdg"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(not optimize)),
        "PYTHONUNBUFFERED": "1",
    }
    command = [*program, *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        command, env=environment, cwd=cache, text=True, **{**pipes, **options}
    )
    _started.append(process)
    return process


def end_all() -> None:
    """Kills what was started and still runs: a test that failed leaves nothing behind."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Returns when the run has recorded a step, however long that takes; fails if it ends first."""
    path = workdir / "metrics.jsonl"
    while not (path.exists() and f'"step": {step}' in path.read_text(encoding="utf-8")):
        assert process.poll() is None, f"it ended before step {step}: {process.communicate()}"
        time.sleep(0.05)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def stop_once(process: subprocess.Popen, path: Path) -> str:
    """SIGTERM as soon as a file is there; standard error, once the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=300)[1]


def run(*arguments: str, timeout: float = 300, **options: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    process = start(*arguments, **options)
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """A run's metrics without the fields that depend on the clock."""
    lines = read_metrics(workdir)
    return [{k: v for k, v in line.items() if k != "clock"} for line in lines]


def error_line(errors: str) -> str:
    """The one line of an error; fails on a traceback."""
    assert "Traceback" not in errors, errors
    lines = [line for line in errors.splitlines() if line.startswith("transformer: ")]
    assert len(lines) == 1, errors
    return re.sub("^transformer: ", "", lines[0])
