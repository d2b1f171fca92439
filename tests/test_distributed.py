"""Processes that were not told the same, or of which one fails: one line, in all of them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, TINY, error_line, free_port, start

pytestmark = pytest.mark.optax
QUICK = (
    "--config.training.steps=20",
    "--config.training.eval_every=0",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=2",
    "--config.distributed.enabled=True",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def together(
    cache: Path, *told: tuple[str, ...], program: Sequence[str] = COMMAND
) -> list[tuple[int, str]]:
    """Exit code and standard error of processes that were each told something else besides."""
    coordinator = f"--config.distributed.coordinator=127.0.0.1:{free_port()}"
    processes = [
        start(
            *("train", TINY, *QUICK, coordinator, f"--config.distributed.process={index}"),
            *(f"--config.distributed.processes={len(told)}", *mine),
            cache=cache,
            devices=2,
            program=program,
        )
        for index, mine in enumerate(told)
    ]
    try:
        errors = [process.communicate(timeout=180)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


def refusal(ended: list[tuple[int, str]]) -> str:
    """The line with which all processes ended."""
    assert [code for code, _ in ended] == [1] * len(ended), ended
    lines = {error_line(errors) for _, errors in ended}
    assert len(lines) == 1, ended
    return lines.pop()


def test_another_seed_is_refused_before_the_first_step(cache: Path, tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path}/run"
    line = refusal(together(cache, (workdir,), (workdir, "--config.seed=1")))
    assert "process 1 has another configuration than process 0 (seed is 1 there, 0 here)" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.schedule_options.scale", "0.5"),
        ("model.dropout", "0.2"),
        ("training.steps", "30"),
        ("checkpoints.every", "7"),
        ("data.tokens_per_batch", "2048"),
    ],
)
def test_another_key_is_refused_by_its_name(
    cache: Path, tmp_path: Path, key: str, value: str
) -> None:
    workdir = f"--workdir={tmp_path}/run"
    line = refusal(together(cache, (workdir,), (workdir, f"--config.{key}={value}")))
    assert "process 1" in line and key in line


@pytest.mark.slow
def test_another_text_is_refused(cache: Path, tmp_path: Path) -> None:
    for name, content in (("a", "uno dos\n"), ("b", "one two\n"), ("c", "one tow\n")):
        (tmp_path / name).write_text(content * 40, encoding="utf-8")
    text = ("--config.data.source=text", f"--config.data.text.train_source={tmp_path}/a")
    ours, theirs = (f"--config.data.text.train_target={tmp_path}/{name}" for name in "bc")
    workdir = f"--workdir={tmp_path}/run"
    line = refusal(together(cache, (workdir, *text, ours), (workdir, *text, theirs)))
    assert "process 1 has another train set than process 0" in line


@pytest.mark.slow
def test_a_folder_of_its_own_is_refused(cache: Path, tmp_path: Path) -> None:
    """The second process sees another folder: none, or an older copy of the run."""
    workdirs = [(f"--workdir={tmp_path}/{name}",) for name in ("run", "copy")]
    assert "must be one that all processes share" in refusal(together(cache, *workdirs))
    (tmp_path / "run").rename(tmp_path / "copy")
    assert "must be one that all processes share" in refusal(together(cache, *workdirs))


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
def test_another_number_of_processes_is_refused(
    cache: Path, tmp_path: Path, counts: tuple[int, int]
) -> None:
    told = [(f"--workdir={tmp_path}/r", f"--config.distributed.processes={n}") for n in counts]
    assert f"process 1 was told distributed.processes={counts[1]}" in refusal(
        together(cache, *told)
    )


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_fails_ends_all_with_its_reason(
    cache: Path, tmp_path: Path, failing: int
) -> None:
    """The one has no source file, which it finds out when all are on their way.

    Process 1 takes a second to exit, as on a busy machine: process 0's service must outlast it.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "exit = os._exit\n"
        "def slowly(code):\n"
        "    time.sleep(sys.modules['jax'].process_index())\n"
        "    exit(code)\n"
        "os._exit = slowly\n",
        encoding="utf-8",
    )
    for name, line in (("a", "uno dos\n"), ("b", "one two\n")):
        (tmp_path / name).write_text(line * 40, encoding="utf-8")
    text = ("--config.data.source=text", f"--config.data.text.train_target={tmp_path}/b")
    told = [
        (
            f"--workdir={tmp_path}/run",
            *text,
            f"--config.data.text.train_source={tmp_path}/{'none' if index == failing else 'a'}",
        )
        for index in range(2)
    ]
    path = f"PYTHONPATH={tmp_path}:{os.getcwd()}"
    ended = together(cache, *told, program=("env", path, *COMMAND))
    assert [code for code, _ in ended] == [1, 1], ended
    lines = [error_line(errors) for _, errors in ended]
    assert "No such file" in lines[failing]
    assert lines[1 - failing] == f"process {failing}: {lines[failing]}"


@pytest.mark.slow
def test_an_exception_ends_all_with_its_last_line(cache: Path, tmp_path: Path) -> None:
    """The second process's NumPy raises in the middle of training."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import os\n"
        "if os.environ.get('FAILS'):\n"
        "    import transformer.data.pipeline as p\n"
        "    rows = p.Batches.rows\n"
        "    def fail(self, step, *a):\n"
        "        if step == 10: raise ZeroDivisionError('a fault of the tests')\n"
        "        return rows(self, step, *a)\n"
        "    p.Batches.rows = fail\n",
        encoding="utf-8",
    )
    port = free_port()
    processes = []
    for index in range(2):
        program = ["env", f"PYTHONPATH={tmp_path}:{os.getcwd()}", *["FAILS=1"] * index]
        processes.append(
            start(
                *("train", TINY, *QUICK, f"--workdir={tmp_path}/run"),
                f"--config.distributed.coordinator=127.0.0.1:{port}",
                "--config.distributed.processes=2",
                f"--config.distributed.process={index}",
                cache=cache,
                devices=2,
                program=(*program, *COMMAND),
            )
        )
    errors = [process.communicate(timeout=180)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], errors
    reason = "process 1: ZeroDivisionError: a fault of the tests"
    assert error_line(errors[0]) == reason
    assert "Traceback" in errors[1]


def test_explicit_processes_are_not_overruled_by_slurm() -> None:
    """JAX would take the node's local rank for the one device that a process may see."""
    code = (
        "import jax\n"
        "from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES as seen\n"
        "from transformer import distributed\n"
        f"distributed.initialize(enabled=True, coordinator='127.0.0.1:{free_port()}',\n"
        "    processes=1, process=0, timeout=60.0)\n"
        "print(seen.value, jax.process_count())\n"
    )
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
    }
    environment = {**os.environ, **slurm, "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert output.stdout.split() == ["all", "1"], output.stderr
