"""The big model's whole training step, compiled for TPUs that are not there (with libtpu).

    tests/run -m tpu_aot                    about 4 minutes of 2 cores
    UPDATE_GOLDEN=1 tests/run -m tpu_aot    writes tests/golden/tpu_aot anew: look at the diff

A new golden text is legitimate where the model, the mesh or libtpu changed; constraints.txt pins
libtpu. The counts are of the optimised program's text: what is in a loop's body stands once,
however often the loop runs. Layers are one loop, hops of a ring another, the loss's chunks a third.
FLOPs and bytes are of the whole step.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments import wmt14_en_de_big
from tests.support import golden_text
from transformer.config import from_dict
from transformer.planning.compiled import Cost, peak_bytes
from transformer.planning.hlo import Module
from transformer.planning.tpu import Program, compile_step

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

    @property
    def sizes(self) -> dict[str, int]:
        """Of all axes of a mesh, as its devices are numbered."""
        return {axis: self.mesh.get(axis, 1) for axis in ("data", "fsdp", "tensor", "sequence")}


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


@dataclass(frozen=True)
class Compiled:
    case: Case
    program: Program


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def compiled(request: pytest.FixtureRequest) -> Iterator[Compiled]:
    case = request.param
    tree = wmt14_en_de_big.get_config()
    mesh = {f"mesh.{axis}": size for axis, size in case.mesh.items()}
    tree.update_from_flattened_dict({**mesh, **case.changes})
    config = from_dict(tree.to_dict())
    program = compile_step(config, case.topology, case.rows, case.length, libtpu=LIBTPU)
    print(case.name, program.memory, program.seconds)
    yield Compiled(case, program)


def test_fits_the_chip(compiled: Compiled) -> None:
    memory = compiled.program.memory
    assert peak_bytes(memory) <= MEMORY[compiled.case.topology.split(":")[0]], memory
    # The state is donated: all but the metrics is written where it was read.
    assert memory["output"] - memory["alias"] < 2**20, memory


def test_runs_the_pallas_kernel(compiled: Compiled) -> None:
    """Forward, and both backward passes, of splash: as TPU kernels, not interpreted."""
    kernels = [line for line in compiled.program.text.splitlines() if '"tpu_custom_call"' in line]
    for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert any(name in line for line in kernels), name


def test_collectives_are_those_of_the_mesh(compiled: Compiled) -> None:
    found = collectives(compiled)
    assert set(found) == compiled.case.kinds, found


def test_it_costs_what_it_did(compiled: Compiled) -> None:
    path = GOLDEN / f"{compiled.case.name}.txt"
    golden_text.compare(path, text(compiled), "-m tpu_aot")


def test_nothing_is_rematerialized_involuntarily(compiled: Compiled) -> None:
    """The partitioner's warning that it found no way but to copy an array to every device."""
    assert re.search(r"^W\d+ ", compiled.program.errors, re.MULTILINE), "warnings are not on stderr"
    found = [
        line for line in compiled.program.errors.splitlines() if "full rematerialization" in line
    ]
    assert not found, "\n".join(found)


def text(compiled: Compiled) -> str:
    case, program = compiled.case, compiled.program
    cost = Cost.of(program.text, case.sizes)
    mesh = " x ".join(f"{axis} {size}" for axis, size in case.mesh.items())
    changes = ", ".join(f"{key}={value}" for key, value in case.changes.items())
    return golden_text.OF_JAX + "\n".join(
        [
            f"# {EXPERIMENT} on {case.topology}, {mesh}:",
            f"# {changes};",
            f"# {case.rows} rows of {case.length:,} positions, source and target.",
            "# Of one chip. FLOPs are of matrix products outside of kernels.",
            f"FLOPs: {cost.flops:.6g}",
            f"peak memory: {peak_bytes(program.memory) / 2**20:,.0f} MiB",
            *(f"sent over {axes}: {bytes:,.0f} bytes" for axes, bytes in sorted(cost.sent.items())),
            "# In the optimised program's text; what is in a loop's body counts once.",
            f"fusions: {program.text.count(' fusion(')}",
            f"custom calls: {program.text.count(' custom-call(')}",
            *(f"{kind}: {n}" for kind, n in sorted(collectives(compiled).items())),
            "",
        ]
    )


def collectives(compiled: Compiled) -> Counter[str]:
    """Kind → how many; of permutes, over which axes of the mesh."""
    sizes, found = compiled.case.sizes, Counter[str]()
    for one in Module(compiled.program.text).collectives:
        along = f" over {' x '.join(one.axes(sizes))}" if one.kind == "collective-permute" else ""
        found[one.kind + along] += 1
    return found
