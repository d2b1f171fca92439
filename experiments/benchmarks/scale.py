"""What a training step costs each chip on 8 to 512 of them, read from programs compiled for them.

    python -m experiments.benchmarks.scale --json=FILE --png=FILE     (half a minute a case)

wmt14_en_de_big on TPU v5p, its step compiled ahead of time (libtpu; no TPU at hand) with the same
tokens a chip on every mesh. Time on a machine that pretends to be many says little; on paper, weak
scaling holds where a chip's work stays flat and what it sends stays near what its sharding needs:

    FLOPs   of matrix products, within 3 % of the mesh's least (attention's kernel is not in it:
            2 % of these, the same for all)
    sent    bytes over links, at most 1.1 times the least (`transformer.planning.compiled.least`
            derives it)

All logits are held at once (training.loss_chunks=1), which 95 GiB allow: with fsdp each chunk's
gradient of the output table would travel by itself.

What is sent beyond the least, by mesh:

    data         nothing
    data-fsdp    the embedding's gradient is all-reduced whole, where a scatter and an all-reduce
                 of a part would do (133 MB, not 76, on 8 chips)
    fsdp         nothing on 8 chips, the same gradient on 64 and 128. On 256 and 512, a chip keeps 4
                 and 2 of each weight's D = 1,024, and the compiler does not scatter shards of fewer
                 than 8: it all-reduces them, 1.35 times the bytes in all. Split parameters over
                 D / 8 = 128 chips and the batch over the rest too (data-fsdp128): within the bound,
                 in as much memory
    fsdp-unset   by default the compiler sends 1.31 times the least on 8 chips, 2.12 on 64
    data-tensor  the memory's gradient is summed over the chips in each of the decoder's layers, not
                 once for all six: 69 vectors a position, not 64

Rows are kept in --json as they come, each with the revision that it was measured at: stopped, or
asked for more --cases, it does what is missing. Delete the rows of what a change may have moved.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import wmt14_en_de_big
from experiments.benchmarks.common import new_figure, record
from transformer import machine
from transformer.config import Config, digest_of, from_dict
from transformer.files import write_json
from transformer.inspection.figures import write_figure
from transformer.planning import compiled, tpu
from transformer.planning.hlo import Module
from transformer.sharding import mesh_sizes

FLAT = 1.03  # times the mesh's least FLOPs of a chip
NEAR = 1.1  # times the least bytes sent
LENGTH = 128  # positions of source and of target
# What a run on such chips would set in LIBTPU_INIT_ARGS, for fewer bytes: its time is not measured.
# Unset, the compiler overlaps small gathers and scatters with products, as rings of permutes, and
# all-reduces what all chips of a torus of three axes would gather or scatter.
FLAGS = (
    "--xla_tpu_enable_windowed_einsum_for_all_gather=false",
    "--xla_tpu_enable_windowed_einsum_for_reduce_scatter=false",
    "--xla_enable_async_all_gather=true",
    "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "--xla_tpu_prefer_async_allgather_to_allreduce=true",
    "--xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true",
    "--xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter=true",
)
TOPOLOGIES = {
    8: "v5p:2x2x2",
    16: "v5p:2x2x4",
    32: "v5p:2x4x4",
    64: "v5p:4x4x4",
    128: "v5p:4x4x8",
    256: "v5p:4x8x8",
    512: "v5p:8x8x8",
}
MESHES = {  # name → sizes of axes that are split; -1 is what is left of the chips
    "data": {"data": -1},
    "fsdp": {"fsdp": -1},
    "fsdp-unset": {"fsdp": -1},  # without FLAGS
    "data-fsdp": {"data": -1, "fsdp": 4},
    "data-fsdp128": {"data": -1, "fsdp": 128},
    "data-tensor": {"data": -1, "tensor": 4},
}
CASES = [f"{mesh}:{n}" for mesh in ("data", "data-fsdp", "data-tensor") for n in (8, 64, 512)]
CASES += [f"fsdp:{n}" for n in (8, 64, 128, 256, 512)]
CASES += ["fsdp-unset:8", "fsdp-unset:64", "data-fsdp128:512"]
AXES = ("data", "fsdp", "tensor", "sequence")
LIBTPU = Path(__file__).parents[2] / ".venv" / "libtpu"


@dataclass(frozen=True)
class Case:
    """A mesh of so many chips, and a configuration that fills it."""

    name: str  # MESH:CHIPS
    tokens: int  # of each chip, of source and of target
    compiler: str  # libtpu's version

    @property
    def chips(self) -> int:
        return int(self.name.split(":")[1])

    @property
    def mesh(self) -> dict[str, int]:
        sizes = MESHES[self.name.split(":")[0]]
        return mesh_sizes({**dict.fromkeys(AXES, 1), **sizes}, self.chips)

    @property
    def flags(self) -> tuple[str, ...]:
        return () if self.name.startswith("fsdp-unset:") else FLAGS

    @property
    def rows(self) -> int:
        return self.tokens * self.chips // LENGTH

    @property
    def config(self) -> Config:
        tree = wmt14_en_de_big.get_config()
        tree.update_from_flattened_dict({f"mesh.{axis}": size for axis, size in self.mesh.items()})
        tree.training.loss_chunks = 1
        return from_dict(tree.to_dict())

    @property
    def key(self) -> str:
        """Another one: another program."""
        asked = [self.config.as_dict(), TOPOLOGIES[self.chips], self.rows, LENGTH]
        return digest_of({"asked": [*asked, list(self.flags), self.compiler]})


def case_name(text: str) -> str:
    """An argument, checked."""
    mesh, _, chips = text.partition(":")
    known = mesh in MESHES and chips in map(str, TOPOLOGIES)
    if not known or int(chips) % abs(math.prod(MESHES[mesh].values())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no MESH:CHIPS: a mesh of {', '.join(MESHES)}, and so many chips as it "
            f"divides of {', '.join(map(str, TOPOLOGIES))}"
        )
    return text


def version_of(libtpu: Path) -> str:
    """Of the compiler in this folder; "none" where it has none, which compiling then refuses."""
    found = importlib.metadata.distributions(name="libtpu", path=[str(libtpu)])
    return next((one.version for one in found), "none")


def measure(case: Case, libtpu: Path, programs: Path | None) -> dict[str, Any]:
    """A case's row: all numbers are of one chip in one step.

    Args:
        programs: the folder where what was compiled is kept, and found again.
    """
    topology = TOPOLOGIES[case.chips]
    kept = programs and programs / f"{case.key}.json"
    if kept and kept.exists():
        program = tpu.Program(**json.loads(kept.read_bytes()))
    else:
        asked = (case.config, topology, case.rows, LENGTH)
        program = tpu.compile_step(*asked, libtpu=libtpu, flags=case.flags)
        if kept:
            write_json(kept, dataclasses.asdict(program))
    cost = compiled.Cost.of(program.text, case.mesh)
    assert program.least is not None
    return {
        "case": case.name,
        "key": case.key,
        "git": machine.describe()["git"],
        "libtpu": case.compiler,
        "chips": case.chips,
        "topology": topology,
        "mesh": {axis: size for axis, size in case.mesh.items() if size > 1},
        "flops": cost.flops,
        "sent": cost.sent,
        "least": program.least,
        "ratio": sum(cost.sent.values()) / sum(program.least.values()),
        "memory": compiled.peak_bytes(program.memory),
        "seconds": sum(program.seconds.values()),
        "largest": list(_largest(program.text, case.mesh)),
    }


def _largest(text: str, mesh: dict[str, int]) -> Iterator[str]:
    """Collectives that send most, in words."""
    found = sorted(Module(text).collectives, key=lambda one: -one.sent)
    for one in found[:8]:
        biggest = max(one.shapes, key=lambda shape: shape.bytes)
        yield (
            f"{one.sent / 1e6:.1f} MB: {one.times} x {one.kind} over {' x '.join(one.axes(mesh))} "
            f"of {biggest.dtype}{list(biggest.dims)}"
            f"{f' and {len(one.shapes) - 1} more' if len(one.shapes) > 1 else ''}; "
            f"{'/'.join(one.source.split('/')[-3:])}"
        )


def judged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `flat`, FLOPs over the mesh's least, and whether the row `holds`."""
    found = []
    for row in rows:
        mine = [x["flops"] for x in rows if _mesh(x) == _mesh(row)]
        flat = row["flops"] / min(mine)
        found.append({**row, "flat": flat, "holds": flat <= FLAT and row["ratio"] <= NEAR})
    return found


def _mesh(row: dict[str, Any]) -> str:
    return row["case"].split(":")[0]


def show(rows: Sequence[dict[str, Any]], tokens: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"Of one chip in one step of {tokens:,} tokens a side"
    heads = ("mesh", "chips", "TFLOP", "flat", "sent, MB", "least", "ratio", "GiB", "")
    table = Table(*heads, title=title)
    for row in rows:
        sent, least = (
            "\n".join(f"{axes} {value / 1e6:,.1f}" for axes, value in sorted(row[of].items()))
            for of in ("sent", "least")
        )
        table.add_row(
            _mesh(row),
            f"{row['chips']}",
            f"{row['flops'] / 1e12:.3f}",
            f"{row['flat']:.3f}",
            sent,
            least,
            f"{row['ratio']:.3f}",
            f"{row['memory'] / 2**30:.1f}",
            "" if row["holds"] else "exceeded",
        )
    Console(width=120).print(table)


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """FLOPs and bytes of a chip, by chips; dotted is the least."""
    figure = new_figure(2)
    left, right = figure.axes
    for number, mesh in enumerate(dict.fromkeys(map(_mesh, rows))):
        mine = sorted((row for row in rows if _mesh(row) == mesh), key=lambda row: row["chips"])
        chips = [row["chips"] for row in mine]
        color = f"C{number}"
        left.plot(chips, [row["flops"] / 1e12 for row in mine], "o-", color=color, label=mesh)
        for of, style in (("sent", "o-"), ("least", "_:")):
            values = [sum(row[of].values()) / 1e9 for row in mine]
            right.plot(chips, values, style, color=color)
    left.set(ylabel="TFLOP a chip and step")
    right.set(ylabel="GB sent a chip and step (dashes: the least)")
    ticks = sorted({row["chips"] for row in rows})
    for axes in figure.axes:
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, labels=map(str, ticks))
        axes.margins(y=0.1)
        axes.set(xlabel="chips", ylim=(0, None))
    left.legend(frameon=False, fontsize=9)
    write_figure(path, figure)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", type=case_name, nargs="+", default=CASES, metavar="MESH:CHIPS")
    parser.add_argument("--tokens", type=int, default=4_096, help="of a chip, each side")
    parser.add_argument("--libtpu", type=Path, default=LIBTPU, help="where it is installed")
    parser.add_argument("--results", type=Path, metavar="DIR", help="keeps compiled programs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)

    known: dict[str, Any] = {}
    compiler = version_of(options.libtpu)
    if options.json and options.json.exists() and not options.results:
        known = {row["case"]: row for row in json.loads(options.json.read_bytes())["rows"]}
    for case in [Case(name, options.tokens, compiler) for name in options.cases]:
        if case.name not in known or known[case.name]["key"] != case.key:
            known[case.name] = measure(case, options.libtpu, options.results)
        if options.json:
            settings = {"tokens": options.tokens, "length": LENGTH, "flags": list(FLAGS)}
            kept = judged(list(known.values()))
            write_json(
                options.json,
                record("experiments.benchmarks.scale", _public(arguments), **settings, rows=kept),
            )
    rows = judged(list(known.values()))
    show(rows, options.tokens)
    if options.png:
        draw(options.png, rows)


def _public(arguments: Sequence[str]) -> list[str]:
    """Without folders of this machine."""
    return [x for x in arguments if not x.startswith(("--libtpu", "--results"))]


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
