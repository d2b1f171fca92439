"""Whole runs in a bucket, in real processes before a real server: killed, frozen, moved, read."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import differences
from tests.support import object_stores
from tests.support.processes import ROOT, TINY, error_line, free_port, metrics, run, start
from transformer import storage

pytestmark = pytest.mark.slow
# Owners are dead after six seconds without a sign of life.
SHORT = (sys.executable, str(ROOT / "tests" / "support" / "short_terms.py"), "6")


@pytest.fixture(scope="module")
def google() -> Iterator[object_stores.Proxy]:
    with object_stores.google() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(cache: Path) -> Path:
    code, _, errors = run("train", TINY, f"--workdir={cache / 'undisturbed'}", cache=cache)
    assert code == 0, errors
    return cache / "undisturbed"


def names(workdir: str) -> set[str]:
    return {*storage.bucket_path(workdir).root.manifest(fresh=True).entries}


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def started(command: tuple[str, ...], workdir: str, cache: Path) -> subprocess.Popen:
    """A trainer that has written a checkpoint."""
    process = start(*command, cache=cache, program=SHORT)
    wait_for(process, lambda: "checkpoints/60" in names(workdir))
    return process


def test_a_run_is_killed_resumed_and_used_from_the_bucket_alone(
    google: object_stores.Proxy, undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    workdir = f"gs://{object_stores.BUCKET}/runs/killed"
    command = ("train", TINY, f"--workdir={workdir}")
    process = started(command, workdir, cache)
    process.kill()
    process.communicate()
    code, _, errors = run(*command, cache=cache, program=SHORT)
    assert code == 0, errors
    assert "going on from step" in errors and "taken over from process" in errors
    empty = tmp_path / "another_machine"
    empty.mkdir()
    code, _, errors = run("copy", f"--from={workdir}", f"--to={tmp_path / 'run'}", cache=empty)
    assert code == 0, errors
    assert differences(undisturbed, tmp_path / "run") == []
    there, here = (
        (
            run("evaluate", f"--workdir={where}", "--json", cache=empty)[:2],
            run("evaluate", f"--workdir={where}", "--split=dev", "--json", cache=empty)[:2],
        )
        for where in (workdir, undisturbed)
    )
    assert there == here and there[0][0] == 0
    assert "evaluation.dev.json" in names(workdir)


def test_a_second_trainer_is_refused(google: object_stores.Proxy, cache: Path) -> None:
    workdir = f"gs://{object_stores.BUCKET}/runs/refused"
    command = ("train", TINY, f"--workdir={workdir}", "--config.training.steps=9000")
    process = start(*command, cache=cache)
    wait_for(process, lambda: storage.bucket_path(workdir).root.manifest(fresh=True).token == 1)
    code, _, errors = run(*command, cache=cache)
    assert code == 1 and "is being trained by another process, process" in error_line(errors)
    assert process.poll() is None
    process.kill()


def test_a_frozen_owner_is_fenced(
    google: object_stores.Proxy, undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """It is stopped beyond its term, another takes over, it goes on: nothing of it is read."""
    workdir = f"gs://{object_stores.BUCKET}/runs/frozen"
    command = ("train", TINY, f"--workdir={workdir}")
    frozen = started(command, workdir, cache)
    frozen.send_signal(signal.SIGSTOP)
    second = start(*command, cache=cache, program=SHORT)
    wait_for(second, lambda: storage.bucket_path(workdir).root.manifest(fresh=True).token == 2)
    frozen.send_signal(signal.SIGCONT)
    _, errors = frozen.communicate(timeout=120)
    assert frozen.returncode == 1 and "was taken over by process" in error_line(errors)
    _, errors = second.communicate(timeout=200)
    assert second.returncode == 0, errors
    code, _, errors = run("copy", f"--from={workdir}", f"--to={tmp_path / 'run'}", cache=cache)
    assert code == 0, errors
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_run_goes_into_a_bucket_and_comes_back(
    google: object_stores.Proxy, undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    workdir = f"gs://{object_stores.BUCKET}/runs/copied"
    for source, target in ((undisturbed, workdir), (workdir, tmp_path / "back")):
        code, _, errors = run("copy", f"--from={source}", f"--to={target}", cache=cache)
        assert code == 0, errors
    assert differences(undisturbed, tmp_path / "back") == []
    files = [
        {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
        for run in (undisturbed, tmp_path / "back")
    ]
    files[0].pop(Path(".lock"))
    assert files[0] == files[1]
    code, _, errors = run("copy", f"--from={undisturbed}", f"--to={workdir}", cache=cache)
    assert code == 1 and "is there already" in error_line(errors)
    more = ("--config.training.steps=310",)
    code, _, errors = run("train", TINY, f"--workdir={workdir}", *more, cache=cache)
    assert code == 0 and "going on from step 300" in errors, errors


def test_two_processes_that_share_no_disk(
    google: object_stores.Proxy, cache: Path, tmp_path: Path
) -> None:
    """They end with what two processes on one disk end with."""
    workdir = f"gs://{object_stores.BUCKET}/runs/together"
    for where, folders in ((workdir, "ab"), (tmp_path / "disk", "aa")):
        port = free_port()
        processes = []
        for index, name in enumerate(folders):
            (tmp_path / name).mkdir(exist_ok=True)
            processes.append(
                start(
                    *("train", TINY, f"--workdir={where}", "--config.training.steps=70"),
                    *("--config.mesh.data=2", "--config.mesh.fsdp=2"),
                    *("--config.distributed.enabled=True", "--config.distributed.processes=2"),
                    f"--config.distributed.coordinator=127.0.0.1:{port}",
                    f"--config.distributed.process={index}",
                    cache=tmp_path / name,
                    devices=2,
                )
            )
        results = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], results
    code, _, errors = run("copy", f"--from={workdir}", f"--to={tmp_path / 'run'}", cache=cache)
    assert code == 0, errors
    runs = tmp_path / "disk", tmp_path / "run"
    paths = [run / "checkpoints" / "70" / "meta" / "metadata" for run in runs]
    there, here = (json.loads(path.read_bytes())["digests"] for path in paths)
    assert there == here and metrics(runs[0]) == metrics(runs[1])


@pytest.mark.parametrize(
    ("workdir", "reason"),
    [
        ("gs://nowhere/run", "there is no bucket nowhere"),
        ("gs:///run", "names no bucket"),
        ("gs://bucket/a[b]", r"'a[b]' cannot be part of a name"),
        ("hf://bucket/run", "of no store that is supported"),
        ("s3://bucket/run", "Orbax reads and writes no arrays there"),
    ],
)
def test_a_bad_address_is_a_line(
    google: object_stores.Proxy, cache: Path, workdir: str, reason: str
) -> None:
    code, _, errors = run("train", TINY, f"--workdir={workdir}", cache=cache)
    assert code != 0 and reason in error_line(errors)
