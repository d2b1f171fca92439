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
from tests.support.places import SHORT_TERMS, InBucket
from tests.support.processes import TINY, error_line, free_port, metrics, run, start
from transformer import storage
from transformer.files import any_path

pytestmark = pytest.mark.slow


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


@pytest.fixture
def place(google: object_stores.Proxy, cache: Path) -> InBucket:
    """A place in the bucket where no run lies yet."""
    return InBucket(google, cache)


def started(place: InBucket, cache: Path) -> subprocess.Popen:
    """A trainer that has written a checkpoint."""
    process = start(*train(place), cache=cache, program=SHORT_TERMS)
    wait_for(process, lambda: place.whole() == [60])
    return process


def train(place: InBucket) -> tuple[str, ...]:
    return ("train", TINY, f"--workdir={place.workdir}")


def stop_saving(process: subprocess.Popen, place: InBucket) -> set[object]:
    """Stops a trainer inside a save; what it has begun and not finished."""
    while True:
        wait_for(process, lambda: bool(place.unfinished()))
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # for what is on its way
        if begun := place.unfinished():
            return begun
        process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def resumed(google: object_stores.Proxy, cache: Path) -> tuple[InBucket, tuple[set[object], str]]:
    """A run that was killed inside a save and gone on with; what that left, and was told."""
    place = InBucket(google, cache)
    process = started(place, cache)
    begun = stop_saving(process, place)
    process.kill()
    process.communicate()
    code, _, errors = run(*train(place), cache=cache, program=SHORT_TERMS)
    assert code == 0, errors
    return place, (begun, errors)


Resumed = tuple[InBucket, tuple[set[object], str]]


def test_a_run_is_killed_and_resumed(resumed: Resumed, undisturbed: Path, tmp_path: Path) -> None:
    place, (_, errors) = resumed
    assert "going on from step" in errors and "taken over from process" in errors
    assert differences(undisturbed, place.brought(tmp_path / "run")) == []


def test_a_bucket_holds_what_its_manifest_names(
    resumed: Resumed, google: object_stores.Proxy
) -> None:
    """Neither checkpoints that were retired, nor what a killed owner had begun to save."""
    place, (begun, _) = resumed
    assert begun and place.whole() == [180, 240, 300]
    assert place.unnamed() == set()


def test_a_run_is_used_from_the_bucket_alone(
    resumed: Resumed, undisturbed: Path, tmp_path: Path
) -> None:
    """On a machine that has nothing of it, as where it lies on a disk."""
    (tmp_path / "source.txt").write_text("la casa roja\nel perro come\n", encoding="utf-8")

    def used(workdir: object) -> list[str]:
        outputs = []
        for command in (
            ("evaluate", "--json"),
            ("evaluate", "--split=dev", "--json"),
            ("attention", "la casa roja"),
            ("translate", "--scores"),
        ):
            name, *options = command
            with (tmp_path / "source.txt").open() as source:
                code, output, errors = run(
                    name, f"--workdir={workdir}", *options, cache=tmp_path, stdin=source
                )
            assert code == 0, errors
            outputs.append(output.replace(str(workdir), "WORKDIR"))
        return outputs

    workdir = resumed[0].workdir
    there = used(workdir)
    assert there == used(undisturbed)
    assert there[2].endswith("WORKDIR/attention.png\n") and there[3].count("\n") == 2
    assert {"evaluation.dev.json", "evaluation.test.json", "attention.png"} <= names(workdir)
    picture = storage.bucket_path(workdir) / "attention.png"
    assert picture.read_bytes() == (undisturbed / "attention.png").read_bytes()


def test_a_second_trainer_is_refused(place: InBucket, cache: Path) -> None:
    """The owner writes no checkpoint meanwhile: only its signs of life tell that it is alive."""
    more = ("--config.training.steps=90000", "--config.checkpoints.every=90000")
    process = start(*train(place), *more, cache=cache, program=SHORT_TERMS)
    wait_for(process, lambda: place.last_step() > 0)
    code, _, errors = run(*train(place), *more, cache=cache, program=SHORT_TERMS)
    assert code == 1 and "is being trained by another process, process" in error_line(errors)
    assert process.poll() is None
    process.kill()


@pytest.mark.parametrize("saving", [False, True], ids=["between saves", "inside a save"])
def test_a_frozen_owner_is_fenced(
    place: InBucket, undisturbed: Path, cache: Path, tmp_path: Path, saving: bool
) -> None:
    """It is stopped beyond its term, another takes over, it goes on: nothing of it is read."""
    frozen = started(place, cache)
    if saving:
        begun = stop_saving(frozen, place)
    else:
        frozen.send_signal(signal.SIGSTOP)
        begun = set()
    second = start(*train(place), cache=cache, program=SHORT_TERMS)
    wait_for(second, lambda: place.manifest().token == 2)
    if saving:  # when the other has cleared away what it had begun, and goes on itself
        wait_for(second, lambda: bool(place.unfinished() - begun))
    frozen.send_signal(signal.SIGCONT)
    _, errors = frozen.communicate(timeout=120)
    assert frozen.returncode == 1 and "was taken over by process" in error_line(errors)
    _, errors = second.communicate(timeout=200)
    assert second.returncode == 0, errors
    saves = {entry.folder for entry in place.manifest().entries.values() if entry.folder}
    assert {save.split("/")[1] for save in saves} == {"000002"}
    assert differences(undisturbed, place.brought(tmp_path / "run")) == []
    # What the first has written since it woke up lies there until another owner comes.
    assert all(key.startswith("data/000001/") for key in place.unnamed())
    root = storage.bucket_path(place.workdir).root
    root.take()
    root.release()
    assert place.unnamed() == set()


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


TABLE = """
from experiments import table3

ROWS = {name: table3.ROWS[name] for name in ("base", "A1")}
get_config = table3.get_config
"""
COMPARISON = """
from experiments import compare


def get_config(variant=""):
    config = compare.get_config("smoke")
    del config.recall["copy"], config.translation["lstm_none"], config.translation["lstm_luong"]
    config.speed.rounds = 1
    only = config.translation["transformer"]
    only.model.update(encoder_layers=1, decoder_layers=1, d_model=16, heads=2)
    only.data.casa_roja.update(train_size=200, dev_size=11, test_size=11)
    only.training.update(steps=4, eval_every=2)
    return config
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "file", "options"),
    [
        pytest.param("compare", COMPARISON, (), id="compare"),
        pytest.param(
            "table3",
            TABLE,
            (
                "--scale=smoke",
                *(f"--config.model.{side}coder_layers=1" for side in ("en", "de")),
                *(f"--config.training.{key}" for key in ("steps=4", "eval_every=2")),
                *(f"--config.data.casa_roja.{key}" for key in ("train_size=200", "dev_size=11")),
            ),
            id="table3",
        ),
    ],
)
def test_a_report_lies_in_a_bucket(
    google: object_stores.Proxy,
    cache: Path,
    tmp_path: Path,
    command: str,
    file: str,
    options: tuple[str, ...],
) -> None:
    """It says what it says on a disk, and is gone on with where it was stopped."""
    (tmp_path / "file.py").write_text(file, encoding="utf-8")
    config = f"--config={tmp_path}/file.py" + (":all" if command == "table3" else "")
    found = []
    for where in (str(tmp_path / "disk"), f"gs://{object_stores.BUCKET}/reports/{command}"):
        code, output, errors = run(
            *(command, config, *options, f"--workdir={where}"), cache=cache, program=SHORT_TERMS
        )
        assert code == 0, errors
        assert output.split() == [f"{where}/report.{end}" for end in ("md", "html", "json")]
        folder = any_path(where)
        results = {path.name: json.loads(path.read_bytes()) for path in folder.glob("results/*")}
        for name, result in results.items():
            if name.startswith("speed"):
                results[name] = [*result["rows"]]
            else:
                del result["seconds"], result["checksum"]
        pictures = {path.name for path in folder.glob("*.png")}
        assert pictures and all(name in (folder / "report.md").read_text() for name in pictures)
        found.append((results, pictures, {*json.loads((folder / "report.json").read_bytes())}))
    assert found[0] == found[1] and len(found[0][0]) >= 4
    # Once more, in the bucket: nothing is done twice.
    code, output, errors = run(
        *(command, config, *options, f"--workdir={where}"), cache=cache, program=SHORT_TERMS
    )
    assert code == 0 and "evaluation at step" not in errors and output.startswith(where)


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


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "takes no credentials of this machine (Anonymous caller"),
        (403, "no permission (Forbidden: "),
    ],
)
def test_an_account_that_may_not_is_a_line(
    google: object_stores.Proxy, cache: Path, status: int, reason: str
) -> None:
    google.faults.forbidden, google.faults.refusal = "", (status, "Anonymous caller")
    try:
        code, _, errors = run("train", TINY, "--workdir=gs://bucket/denied", cache=cache)
    finally:
        google.faults.forbidden = None
    assert code == 1 and reason in error_line(errors)


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(
    google: object_stores.Proxy, resumed: Resumed, cache: Path
) -> None:
    place, _ = resumed
    google.faults.forbidden = "rest%2Fmanifest.ocdbt"
    try:
        more = ("--config.training.steps=310",)
        code, _, errors = run(*train(place), *more, cache=cache, program=SHORT_TERMS)
    finally:
        google.faults.forbidden = None
    assert code == 1 and "PERMISSION_DENIED" in error_line(errors)
    assert place.whole() == [180, 240, 300]


def test_a_package_that_is_missing_is_a_line(cache: Path) -> None:
    without = (
        "import sys; sys.modules['gcsfs'] = None; from transformer.__main__ import main; main()"
    )
    code, _, errors = run(
        *("evaluate", "--workdir=gs://bucket/run"),
        cache=cache,
        program=(sys.executable, "-c", without),
    )
    assert code == 1
    assert error_line(errors) == "gs:// needs the package gcsfs: pip install -e '.[gcs]'"
