"""The benchmark of scale: its cases, its judgement, what it does not do twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import base
from experiments.benchmarks import scale
from experiments.benchmarks.scale import Case, judged
from transformer.config import Config, from_dict
from transformer.planning import tpu
from transformer.planning.hlo import Module
from transformer.planning.tpu import Program

TEXT = """HloModule step

ENTRY %main (x: bf16[512,6]) -> bf16[512,6] {
  %x = bf16[512,6]{1,0} parameter(0)
  %y = bf16[6,512]{1,0} parameter(1)
  %p = f32[512,512]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r = bf16[512,6]{1,0} all-reduce(%x), channel_id=1, replica_groups=[1,8]<=[8]
}
"""
SENT = 2 * 7 / 8 * 512 * 6 * 2


def test_a_mesh_takes_all_chips_and_the_tokens_of_each() -> None:
    assert Case("data-tensor:64", 4_096, "1").mesh == {
        "data": 16,
        "fsdp": 1,
        "tensor": 4,
        "sequence": 1,
    }
    assert Case("fsdp:512", 4_096, "1").mesh == {"data": 1, "fsdp": 512, "tensor": 1, "sequence": 1}
    assert Case("data:512", 4_096, "1").rows * scale.LENGTH == 512 * 4_096


def test_a_row_is_one_of_its_program_and_compiler() -> None:
    key = Case("fsdp:8", 4_096, "1").key
    assert key == Case("fsdp:8", 4_096, "1").key
    others = [("fsdp:8", 2_048, "1"), ("fsdp:8", 4_096, "2"), ("fsdp-unset:8", 4_096, "1")]
    assert key not in [Case(*other).key for other in others]


def test_every_case_fills_its_chips() -> None:
    assert [scale.case_name(name) for name in scale.CASES] == scale.CASES


@pytest.mark.parametrize("name", ["data", "ring:8", "data:7", "data-fsdp128:64"])
def test_a_case_that_is_none_is_one_line(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        scale.main(["--cases", name])
    assert f"error: argument --cases: {name!r} is no MESH:CHIPS" in capsys.readouterr().err


def test_a_row_holds_within_both_bounds_of_its_own_mesh() -> None:
    rows = [
        {"case": "data:8", "flops": 100.0, "ratio": 1.0},
        {"case": "data:64", "flops": 103.1, "ratio": 1.0},
        {"case": "data:512", "flops": 102.9, "ratio": 1.11},
        {"case": "fsdp:8", "flops": 200.0, "ratio": 1.09},
    ]
    assert [row["holds"] for row in judged(rows)] == [True, False, False, True]


def test_what_was_measured_is_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    compiled = []

    def compile_step(config: Config, topology: str, *_: Any, **__: Any) -> Program:
        compiled.append((topology, config.mesh.data))
        memory = {"argument": 2**30, "output": 0, "alias": 0, "temp": 2**30}
        return Program(TEXT, "", memory, {"data": SENT / 1.2}, {"trace": 1.0, "compile": 2.0})

    monkeypatch.setattr(scale.tpu, "compile_step", compile_step)
    path, picture = tmp_path / "scale.json", tmp_path / "scale.png"
    arguments = [f"--json={path}", f"--png={picture}", f"--libtpu={tmp_path}", "--cases", "data:8"]
    scale.main(arguments)
    scale.main([*arguments, "data:16"])
    assert compiled == [("v5p:2x2x2", 8), ("v5p:2x2x4", 16)]
    result = json.loads(path.read_text())
    row = result["rows"][0]
    assert (row["flops"], row["sent"]) == (2 * 512 * 512 * 6, {"data": SENT})
    assert row["ratio"] == pytest.approx(1.2)
    assert str(tmp_path) not in result["command"].replace(str(path), "").replace(str(picture), "")
    assert "exceeded" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.tpu_aot
@pytest.mark.skipif(
    not scale.LIBTPU.is_dir(), reason="no libtpu: `tests/run -m tpu_aot` installs it"
)
def test_parameters_split_over_a_whole_torus_are_gathered_and_scattered() -> None:
    """In rings, or all-reduced whole, as without the flags, they would send more."""
    tree = base.get_config()
    sizes = {"data": 1, "fsdp": 64, "tensor": 1, "sequence": 1}
    tree.update_from_flattened_dict({f"mesh.{axis}": size for axis, size in sizes.items()})
    tree.training.loss_chunks = 1
    step = (from_dict(tree.to_dict()), "v5p:4x4x4", 64, 16)
    program = tpu.compile_step(*step, libtpu=scale.LIBTPU, flags=scale.FLAGS)
    loops = [one for one in Module(program.text).collectives if one.times > 1]
    assert {one.kind for one in loops if one.sent > 1e6} == {"all-gather", "reduce-scatter"}
