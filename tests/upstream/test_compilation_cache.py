"""Compiled programs on disk: written whole, and what is damaged is deleted and written anew."""

import os
from pathlib import Path

import pytest

from tests.support.processes import TINY, free_port, run, start
from transformer.upstream.compilation_cache import CheckedCache


@pytest.mark.parametrize("damage", [b"", b"\0" * 10, b"\0" * 5_000])
def test_what_is_damaged_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    cache = CheckedCache(tmp_path / "programs")
    assert cache.get("jit_step-1") is None
    cache.put("jit_step-1", b"program" * 1_000)
    assert cache.get("jit_step-1") == b"program" * 1_000
    (file,) = (tmp_path / "programs").iterdir()
    content = file.read_bytes()
    for wrong in (damage, content[:-1], bytes([content[0] ^ 1]) + content[1:], content[:-1] + b"?"):
        file.write_bytes(wrong)
        assert cache.get("jit_step-1") is None
        assert not file.exists()
        cache.put("jit_step-1", b"program" * 1_000)
        assert cache.get("jit_step-1") == b"program" * 1_000
    assert os.listdir(tmp_path / "programs") == [file.name], "nothing half-written is left"


def test_what_is_damaged_in_a_cache_that_may_only_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CheckedCache(tmp_path)
    cache.put("a", b"program")
    (tmp_path / "a.checked").write_bytes(b"damaged")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refused)
    assert cache.get("a") is None


@pytest.mark.slow
def test_a_run_mends_its_cache(tmp_path: Path) -> None:
    """Every program of a run truncated, as a kill leaves them: one warning each, then none."""
    command = ("train", TINY, "--config.training.steps=2", "--config.training.eval_every=0")
    said = []
    for number in range(3):
        workdir = f"--workdir={tmp_path}/{number}"
        code, _, errors = run(*command, workdir, cache=tmp_path, own_programs=True)
        assert code == 0, errors
        said.append(errors.count("is damaged: to be compiled anew"))
        programs = list((tmp_path / "xdg/transformer/compiled").iterdir())
        if number == 0:
            for path in programs:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert said[0] == 0 and said[1] > 0 and said[2] == 0


@pytest.mark.slow
def test_each_process_keeps_programs_on_its_own_disk(tmp_path: Path) -> None:
    """At the second start none of them compiles: a program that is kept is not written again."""

    def programs() -> list[dict[str, int]]:
        folders = [tmp_path / str(process) / "xdg/transformer/compiled" for process in range(2)]
        return [{path.name: path.stat().st_mtime_ns for path in f.iterdir()} for f in folders]

    kept = []
    for number in range(2):
        port = free_port()
        processes = []
        for process in range(2):
            (tmp_path / str(process)).mkdir(exist_ok=True)
            processes.append(
                start(
                    *("train", TINY, f"--workdir={tmp_path}/run{number}", "--config.mesh.data=2"),
                    *("--config.training.steps=2", "--config.training.eval_every=0"),
                    "--config.distributed.enabled=True",
                    f"--config.distributed.coordinator=127.0.0.1:{port}",
                    "--config.distributed.processes=2",
                    f"--config.distributed.process={process}",
                    cache=tmp_path / str(process),
                    own_programs=True,
                )
            )
        results = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], results
        kept.append(programs())
    assert kept[0] == kept[1] and all(kept[0])
    assert "programs: 0 compiled" in results[0][1]
