"""Compiles training steps for TPUs that are not there, with libtpu, the TPU's compiler.

In a process of its own: libtpu is loaded once in one, and by one at a time on a machine. No array
is made: shapes and shardings are enough.
"""

import dataclasses
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.config import Config, from_dict
from transformer.errors import UserError

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "1",  # warnings, which else go to a file alone
    "TPU_LOG_DIR": "disabled",
}
REFUSED = 3  # exit code: standard output says why, in a line


@dataclass(frozen=True)
class Program:
    """A step compiled for a topology.

    Attributes:
        text: optimised HLO.
        errors: what the compiler wrote on standard error.
        memory: bytes of a chip: `argument`, `output`, `alias` (of outputs that reuse donated
            arguments), `temp`.
        least: see `compiled.least`; None where that is not derived.
        seconds: to trace and to compile.
    """

    text: str
    errors: str
    memory: dict[str, int]
    least: dict[str, float] | None
    seconds: dict[str, float]


def compile_step(
    config: Config,
    topology: str,
    rows: int,
    length: int,
    *,
    libtpu: Path | None = None,
    flags: Sequence[str] = (),
) -> Program:
    """A configuration's training step on its mesh, for a topology such as "v5p:4x4x4".

    Args:
        rows, length: of the batch, source and target alike.
        libtpu: the folder it was installed into; None: where Python finds it.
        flags: of the compiler, as a run would set them in LIBTPU_INIT_ARGS.

    Raises:
        UserError: libtpu is not there, there is no such topology, the mesh or the batch does not
            fit it, or the program does not fit a chip's memory.
    """
    if not (libtpu.is_dir() if libtpu else importlib.util.find_spec("libtpu")):
        raise UserError(
            f"libtpu, the TPU's compiler, is not there{f' ({libtpu})' if libtpu else ''}: "
            "pip install --no-deps --target .venv/libtpu libtpu"
        )
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    root = str(Path(__file__).parents[2])
    paths = [root, *([str(libtpu)] if libtpu else []), kept.get("PYTHONPATH", "")]
    environment = {
        **kept,
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "LIBTPU_INIT_ARGS": " ".join(flags),
    }
    request = {"topology": topology, "rows": rows, "length": length, "config": config.as_dict()}
    with tempfile.TemporaryDirectory() as folder, _alone():
        done = subprocess.run(
            [sys.executable, "-m", __name__, folder],
            env=environment,
            input=json.dumps(request),
            capture_output=True,
            text=True,
        )
        if done.returncode == REFUSED:
            raise UserError(done.stdout.strip().split("\n")[-1])
        if done.returncode:
            raise RuntimeError(f"the compiler failed: {done.stderr[-4_000:]}")
        report = json.loads((Path(folder) / "report.json").read_bytes())
        return Program((Path(folder) / "program.txt").read_text("utf-8"), done.stderr, **report)


class _alone:
    """While no other process of this machine compiles."""

    def __enter__(self) -> None:
        self._lock = open(Path(tempfile.gettempdir()) / "transformer-libtpu.lock", "wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _compile(request: dict[str, Any], folder: Path) -> None:
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    from transformer.planning.compiled import abstract_batch, least, lowered_step
    from transformer.sharding import Layout

    config, name = from_dict(request["config"]), request["topology"]
    rows, length = request["rows"], request["length"]
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (JaxRuntimeError, NotImplementedError) as error:
        raise UserError(f"no topology {name!r} of a TPU: {_line(error)}") from error
    layout = Layout(dataclasses.asdict(config.mesh), config.sharding.rules, devices)
    try:
        needed = least(config, layout, rows, length)
    except UserError:
        needed = None
    began = time.monotonic()
    lowered = lowered_step(config, layout, abstract_batch(layout, rows, length))
    traced = time.monotonic()
    try:
        compiled = lowered.compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"the step does not fit a chip of {name}: {_line(error)}") from error
    finished, memory = time.monotonic(), compiled.memory_analysis()
    parts = ("argument", "output", "alias", "temp")
    report = {
        "memory": {part: getattr(memory, f"{part}_size_in_bytes") for part in parts},
        "least": needed,
        "seconds": {"trace": round(traced - began, 1), "compile": round(finished - traced, 1)},
    }
    (folder / "program.txt").write_text(compiled.as_text(), "utf-8")
    (folder / "report.json").write_text(json.dumps(report), "utf-8")


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


if __name__ == "__main__":
    try:
        _compile(json.loads(sys.stdin.read()), Path(sys.argv[1]))
    except UserError as error:
        print(error)
        sys.exit(REFUSED)
