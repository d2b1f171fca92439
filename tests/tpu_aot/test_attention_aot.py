"""The big model's whole training step, compiled for TPUs that are not there (with libtpu).

    tests/run -m tpu_aot                    about 6 minutes of 2 cores
    UPDATE_GOLDEN=1 tests/run -m tpu_aot    writes tests/golden/tpu_aot anew: look at the diff

A new golden text is legitimate where the model, the mesh or libtpu changed; constraints.txt pins
libtpu. The counts are of the optimised program's text: a collective in a loop's body stands once,
however often the loop runs. Layers are one loop, hops of a ring another, the loss's chunks a third.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
LIBTPU = ROOT / ".venv" / "libtpu"  # where nothing else finds it
GOLDEN = ROOT / "tests" / "golden" / "tpu_aot"
EXPERIMENT = "experiments.wmt14_en_de_big"
GiB = 2**30
MEMORY = {"v5e": 16 * GiB, "v5p": 95 * GiB}  # bytes of a chip

pytestmark = [
    pytest.mark.tpu_aot,
    pytest.mark.skipif(
        not LIBTPU.is_dir(),
        reason="libtpu, the TPU's compiler, is not there: `tests/run -m tpu_aot` installs it",
    ),
]


@dataclass(frozen=True)
class Case:
    """A mesh of a topology, a batch, and what the mesh calls for.

    Attributes:
        rows, length: of source and of target; 24,576 tokens a side are the paper's 25,000 in rows
            that the mesh divides.
        changes: of the experiment, the mesh apart.
        kinds: of collectives that may be in the program; each must be.
    """

    name: str
    topology: str
    mesh: dict[str, int]
    rows: int
    length: int
    changes: dict[str, Any]
    kinds: set[str]


SPLASH = {"model.attention.backend": "splash"}
RING = {"model.attention.backend": "ring:splash", "model.remat": "full", "model.dtype": "bfloat16"}
# Parameters split over fsdp are gathered and their gradients summed and scattered. The compiler
# makes some of these a ring of permutes of weights, which it overlaps with the product.
FSDP = {"all-gather", "all-reduce", "reduce-scatter", "collective-permute over fsdp"}
# Keys and values travel; gradients of whole parameters are summed. Nothing gathers a sequence.
SEQUENCE = {"collective-permute over sequence", "all-reduce"}
CASES = [
    Case("splash-v5e", "v5e:4x4", {"data": 4, "fsdp": 4}, 192, 128, SPLASH, FSDP),
    Case("splash-v5p", "v5p:4x4x4", {"data": 1, "fsdp": 16, "tensor": 4}, 192, 128, SPLASH, FSDP),
    Case("ring-v5e", "v5e:4x4", {"data": 1, "sequence": 16}, 1, 131_072, RING, SEQUENCE),
    Case("ring-v5p", "v5p:4x4x4", {"data": 1, "sequence": 64}, 1, 131_072, RING, SEQUENCE),
]
AXES = ("data", "fsdp", "tensor", "sequence")  # of a mesh, as devices are numbered


@dataclass(frozen=True)
class Compiled:
    case: Case
    program: str  # optimised HLO
    errors: str  # what the compiler wrote on standard error
    report: dict[str, float]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compiled]:
    """A process of its own: libtpu is loaded once in one, and by one at a time on a machine."""
    case, folder = request.param, tmp_path_factory.mktemp("aot")
    mesh = {f"mesh.{axis}": size for axis, size in case.mesh.items()}
    asked = {
        "experiment": EXPERIMENT,
        "topology": case.topology,
        "rows": case.rows,
        "length": case.length,
        "changes": {**mesh, **case.changes},
    }
    (folder / "request.json").write_text(json.dumps(asked))
    environment = {
        **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        "PYTHONPATH": f"{ROOT}{os.pathsep}{LIBTPU}",
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_STDERR_LOG_LEVEL": "1",  # warnings, which else go to a file alone
        "TPU_LOG_DIR": "disabled",
    }
    command = [sys.executable, str(Path(__file__).with_name("compile_step.py"))]
    with open(Path(tempfile.gettempdir()) / "transformer-libtpu.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [*command, str(folder / "request.json"), str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1_200,
        )
    assert done.returncode == 0, done.stderr[-4_000:]
    report = json.loads((folder / "report.json").read_text())
    print(case.name, report)
    yield Compiled(case, (folder / "program.txt").read_text(), done.stderr, report)


def test_fits_the_chip(compiled: Compiled) -> None:
    report = compiled.report
    new_outputs = report["output_bytes"] - report["alias_bytes"]
    needed = report["argument_bytes"] + report["temp_bytes"] + new_outputs
    assert needed <= MEMORY[compiled.case.topology.split(":")[0]], report
    # The state is donated: all but the metrics is written where it was read.
    assert new_outputs < 2**20, report


def test_runs_the_pallas_kernel(compiled: Compiled) -> None:
    """Forward, and both backward passes, of splash: as TPU kernels, not interpreted."""
    kernels = [line for line in compiled.program.splitlines() if '"tpu_custom_call"' in line]
    for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert any(name in line for line in kernels), name


def test_collectives_are_those_of_the_mesh(compiled: Compiled) -> None:
    found = collectives(compiled.program, compiled.case.mesh)
    assert set(found) == compiled.case.kinds, found
    path = GOLDEN / f"{compiled.case.name}.txt"
    text = golden_text(compiled.case, found)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "other collectives than before: see this file's docstring"


def test_nothing_is_rematerialized_involuntarily(compiled: Compiled) -> None:
    """The partitioner's warning that it found no way but to copy an array to every device."""
    assert re.search(r"^W\d+ ", compiled.errors, re.MULTILINE), "warnings are not on stderr"
    found = [line for line in compiled.errors.splitlines() if "full rematerialization" in line]
    assert not found, "\n".join(found)


def golden_text(case: Case, found: Counter[str]) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in case.mesh.items())
    changes = ", ".join(f"{key}={value}" for key, value in case.changes.items())
    return "\n".join(
        [
            f"# {EXPERIMENT} on {case.topology}, {mesh}:",
            f"# {changes};",
            f"# {case.rows} rows of {case.length:,} positions, source and target.",
            "# Collectives in the optimised program; one in a loop's body counts once.",
            *(f"{kind}: {count}" for kind, count in sorted(found.items())),
            "",
        ]
    )


KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
COLLECTIVE = re.compile(rf" ({'|'.join(KINDS)})(?:-start)?\((?:.*channel_id=(\d+))?")


def collectives(program: str, mesh: dict[str, int]) -> Counter[str]:
    """Kind → how many; of permutes, over which axes of the mesh.

    An asynchronous one is written once for each piece of work that it overlaps, with one channel;
    permutes share theirs, and count each. The TPU's compiler writes a reduce-scatter as a
    computation of that name with an all-reduce in it.
    """
    found: set[tuple[str, str]] = set()
    computation = ""
    for number, line in enumerate(program.splitlines()):
        if line.endswith("{") and not line.startswith(" "):
            computation = line
        if match := COLLECTIVE.search(line):
            kind, channel = match.groups()
            if kind == "collective-permute":
                kind, channel = f"{kind} over {permuted(line, mesh)}", None
            elif computation.startswith("%all-reduce-scatter"):
                kind = "reduce-scatter"
            found.add((kind, channel or f"line {number}"))
    return Counter(kind for kind, _ in found)


def permuted(line: str, mesh: dict[str, int]) -> str:
    """The axes of the mesh along which a permute sends."""
    text = line.split("source_target_pairs={")[1].split("}}")[0]
    pairs = np.array(re.findall(r"(\d+),(\d+)", text), dtype=int)
    shape = [mesh.get(axis, 1) for axis in AXES]
    origins, targets = (np.unravel_index(devices, shape) for devices in pairs.T)
    moved = [a for a, o, t in zip(AXES, origins, targets, strict=True) if (o != t).any()]
    return " x ".join(moved)
