"""The same run on other devices, in other processes, on another day: batches and losses stay."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_runs import finish, together
from tests.faults import differences
from tests.support.processes import ROOT, TINY, metrics, run

FIRST, LAST = 20, 60
EVERY = ("--config.training.log_every=1", "--config.training.eval_every=0")
MESHES = {
    "8 as data 2, fsdp 4": (8, {"data": 2, "fsdp": 4}),
    "4 as fsdp 2, tensor 2": (4, {"data": 1, "fsdp": 2, "tensor": 2}),
    "1": (1, {"data": 1}),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def train(workdir: Path, cache: Path, steps: int, where: str, *more: str) -> None:
    devices, axes = MESHES[where]
    mesh = [f"--config.mesh.{axis}={size}" for axis, size in axes.items()]
    end = f"--config.training.steps={steps}"
    arguments = ("train", TINY, f"--workdir={workdir}", *EVERY, *mesh, end, *more)
    code, _, errors = run(*arguments, cache=cache, devices=devices)
    assert code == 0, errors


@pytest.fixture(scope="module")
def undisturbed(cache: Path) -> list[dict]:
    """The lines of a run on one device, from its first step to its last."""
    train(cache / "undisturbed", cache, LAST, "1")
    return metrics(cache / "undisturbed")


def follows(lines: list[dict], expected: list[dict]) -> None:
    """The same batches in the same order; for 20 steps after the move the same loss, too."""
    assert [line["step"] for line in lines] == list(range(1, LAST + 1))
    assert [line["batch"] for line in lines] == [line["batch"] for line in expected]
    until = FIRST + 20
    losses = [line["loss"] for line in lines[:until]]
    assert losses == pytest.approx([line["loss"] for line in expected[:until]], rel=1e-5)


def spread(lines: list[dict], expected: list[dict], other_seed: list[dict]) -> None:
    """After that it is no further away than a run of another seed is."""
    far = lambda a: sum(abs(x["loss"] - y["loss"]) for x, y in zip(a, expected, strict=True))  # noqa: E731
    assert far(lines) < far(other_seed)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("8 as data 2, fsdp 4", "4 as fsdp 2, tensor 2", marks=pytest.mark.slow),
        pytest.param("8 as data 2, fsdp 4", "1", marks=pytest.mark.long),
        pytest.param("1", "8 as data 2, fsdp 4", marks=pytest.mark.long),
    ],
)
def test_a_run_goes_on_on_other_devices(
    undisturbed: list[dict], cache: Path, tmp_path: Path, before: str, after: str
) -> None:
    workdir = tmp_path / "moved"
    train(workdir, cache, FIRST, before)
    train(workdir, cache, LAST, after)
    follows(metrics(workdir), undisturbed)
    train(tmp_path / "other", cache, LAST, "1", "--config.seed=1")
    spread(metrics(workdir), undisturbed, metrics(tmp_path / "other"))


@pytest.mark.slow
def test_from_one_process_to_two_and_back(
    undisturbed: list[dict], cache: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "moved"
    train(workdir, cache, FIRST, "1")
    steps = f"--config.training.steps={FIRST + 20}"
    assert finish(together(workdir, cache, *EVERY, steps)) == [0, 0]
    train(workdir, cache, LAST, "1")
    follows(metrics(workdir), undisturbed)


@pytest.mark.slow
def test_another_day_host_and_directory_change_nothing(cache: Path, tmp_path: Path) -> None:
    """Two runs of one experiment are the same bits, wherever and whenever they ran."""
    command = ("train", TINY, "--config.training.steps=40", "--config.training.eval_every=40")
    here, there = tmp_path / "here", tmp_path / "a folder of another länge" / "there"
    code, _, errors = run(*command, f"--workdir={here}", cache=cache)
    assert code == 0, errors
    others_cache = tmp_path / "cache"  # nothing is shared: tokens, compiled programs
    others_cache.mkdir()
    program: tuple[str, ...] = (sys.executable, str(ROOT / "tests/support/elsewhere.py"))
    renamed = ["unshare", "-ru", "hostname", "elsewhere"]
    if shutil.which("unshare") and subprocess.run(renamed, capture_output=True).returncode == 0:
        program = ("unshare", "-ru", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh", *program)
    command += (f"--workdir={there}",)
    code, _, errors = run(*command, cache=others_cache, own_programs=True, program=program)
    assert code == 0, errors
    assert differences(here, there) == []
    for name in ("tokenizer.model", "corpus.json", "config.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
