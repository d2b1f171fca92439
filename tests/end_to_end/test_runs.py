"""Whole runs in real processes: stopped and continued, by one process or two, and told apart."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import termios
import threading
from pathlib import Path

import pytest

from tests.faults import differences
from tests.support.processes import TINY, error_line, free_port, metrics, run, start, wait_for_step
from transformer.checkpoints.checkpoints import open_checkpoints
from transformer.experiment import Experiment

STEPS = 300


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs and tokenised corpora, shared by this file's processes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(cache: Path) -> Path:
    workdir = cache / "undisturbed"
    code, _, errors = run("train", TINY, f"--workdir={workdir}", cache=cache)
    assert code == 0, errors
    return workdir


def test_a_run_leaves_what_is_needed_to_repeat_it(undisturbed: Path) -> None:
    config = json.loads((undisturbed / "config.json").read_text())
    assert config["model"]["d_model"] == 16
    (environment,) = json.loads((undisturbed / "environment.json").read_text())
    assert {"packages", "git", "processor", "cores", "devices", "flags"} <= set(environment)
    assert (undisturbed / "tokenizer.model").exists()
    assert list((undisturbed / "tensorboard").iterdir())
    lines = metrics(undisturbed)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(10, 301, 10))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [150, 300]
    saved = sorted(int(path.name) for path in (undisturbed / "checkpoints").iterdir())
    assert saved[-1] == STEPS and len(saved) <= 4


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_stopped_and_continued_equals_undisturbed(
    undisturbed: Path, cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A real signal at a real moment: exit 42, then the same command; every bit is the same."""
    workdir = tmp_path / "stopped"
    process = start("train", TINY, f"--workdir={workdir}", cache=cache)
    wait_for_step(process, workdir, 20)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 42, errors
    stopped = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 20 <= stopped < STEPS
    code, _, errors = run("train", TINY, f"--workdir={workdir}", cache=cache)
    assert code == 0, errors
    assert f"going on from step {stopped}" in errors
    assert differences(undisturbed, workdir) == []
    assert averaged(workdir) == averaged(undisturbed), "and they evaluate the same mean"


def read_all(terminal: int, until: threading.Event) -> None:
    while not until.is_set():
        os.read(terminal, 4_096)


def has_a_terminal() -> None:
    """What a shell does for the processes that it starts."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_closed_terminal_loses_nothing(cache: Path, tmp_path: Path) -> None:
    """Nor do messages that nobody reads any more: all is saved, and the exit code says so."""
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    endless = ("--config.training.steps=100_000", "--config.training.eval_every=0")
    process = start(
        *("train", TINY, f"--workdir={tmp_path}/run", *endless),
        cache=cache,
        start_new_session=True,
        preexec_fn=has_a_terminal,
        **streams,
    )
    os.close(theirs)
    over = threading.Event()
    reader = threading.Thread(target=read_all, args=(ours, over))
    reader.start()
    try:
        wait_for_step(process, tmp_path / "run", 10)
        over.set()
        reader.join(timeout=60)  # the bar writes often
        os.close(ours)
        assert process.wait(timeout=60) == 42
    finally:
        over.set()
        process.kill()
        process.wait()
    assert [step for step in os.listdir(tmp_path / "run" / "checkpoints") if step.isdigit()]


def averaged(workdir: Path) -> list[int]:
    """The steps of the checkpoints that evaluation averages."""
    with contextlib.closing(open_checkpoints(Experiment.open(workdir), read_only=True)) as kept:
        return kept.recent(2)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("lstm", marks=pytest.mark.slow),
        *(pytest.param(family, marks=pytest.mark.long) for family in ("rnn", "gru")),
    ],
)
def test_every_family_goes_on_as_if_undisturbed(cache: Path, tmp_path: Path, family: str) -> None:
    change = (f"--config.model.family={family}", "--config.training.steps=100")
    expected, workdir = tmp_path / "undisturbed", tmp_path / "stopped"
    code, _, errors = run("train", TINY, f"--workdir={expected}", *change, cache=cache)
    assert code == 0, errors
    process = start("train", TINY, f"--workdir={workdir}", *change, cache=cache)
    wait_for_step(process, workdir, 30)
    process.send_signal(signal.SIGKILL if family == "gru" else signal.SIGTERM)
    process.communicate(timeout=120)
    code, _, errors = run("train", TINY, f"--workdir={workdir}", *change, cache=cache)
    assert code == 0, errors
    assert differences(expected, workdir) == []


@pytest.mark.slow
def test_a_run_that_ran_out_of_time_is_done(cache: Path, tmp_path: Path) -> None:
    """The same command again adds nothing; a longer limit goes on."""
    workdir = tmp_path / "short"
    command = ("train", TINY, f"--workdir={workdir}", "--config.training.eval_every=0")
    code, _, errors = run(*command, "--config.training.minutes=0.0001", cache=cache)
    assert code == 0, errors
    first = metrics(workdir)
    assert [line.get("event") for line in first] == [None, "out of time"]
    assert run(*command, "--config.training.minutes=0.0001", cache=cache)[0] == 0
    assert metrics(workdir) == first
    code, _, errors = run(*command, "--config.training.steps=20", cache=cache)
    assert code == 0, errors
    assert metrics(workdir)[-1]["step"] == 20


def test_a_directory_serves_one_trainer(cache: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "shared"
    process = start("train", TINY, f"--workdir={workdir}", cache=cache)
    wait_for_step(process, workdir, 10)
    code, _, errors = run("train", TINY, f"--workdir={workdir}", cache=cache)
    process.kill()
    process.communicate()
    assert code == 1
    assert "is being trained by another process" in error_line(errors)


@pytest.mark.slow
def test_a_changed_corpus_is_refused(cache: Path, tmp_path: Path) -> None:
    """Other text under the same names; the same text elsewhere is the same."""
    workdir = tmp_path / "run"
    arguments = [f"--config.training.{key}" for key in ("steps=2", "eval_every=0", "log_every=1")]
    for side, line in (("source", "uno dos tres\n"), ("target", "one two three\n")):
        (tmp_path / side).write_text(line * 40)
        (tmp_path / f"moved_{side}").write_text(line * 40)

    def again(prefix: str, *more: str) -> tuple[int, str, str]:
        files = [
            f"--config.data.text.train_{side}={tmp_path}/{prefix}{side}"
            for side in ("source", "target")
        ]
        source = "--config.data.source=text"
        command = ("train", TINY, f"--workdir={workdir}", source, *files, *arguments, *more)
        return run(*command, cache=cache)

    assert again("")[0] == 0
    code, _, errors = again("moved_", "--config.training.steps=3")
    assert code == 0, errors
    (tmp_path / "source").write_text("uno dos cuatro\n" * 40)
    code, _, errors = again("", "--config.training.steps=4")
    assert code == 1
    assert "the train set is not the one that the run" in error_line(errors)


def test_a_finished_run_has_nothing_to_do(undisturbed: Path, cache: Path) -> None:
    """Also where attention is computed otherwise, as another machine asks for."""
    before = metrics(undisturbed)
    otherwise = "--config.model.attention.backend=chunked"
    code, _, errors = run("train", TINY, f"--workdir={undisturbed}", otherwise, cache=cache)
    assert code == 0, errors
    assert metrics(undisturbed) == before


def test_another_configuration_is_refused(undisturbed: Path, cache: Path) -> None:
    before = metrics(undisturbed)
    arguments = ("train", TINY, f"--workdir={undisturbed}", "--config.model.d_ff=32")
    code, _, errors = run(*arguments, cache=cache)
    assert code == 1
    assert "holds a run of another configuration (model.d_ff is 32 here, 64 there)" in error_line(
        errors
    )
    assert metrics(undisturbed) == before


def test_a_damaged_checkpoint_is_named_and_made_again(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """One bit of the newest is not what was written: the run goes on from the one before."""
    workdir = tmp_path / "damaged"
    shutil.copytree(undisturbed, workdir)
    newest = workdir / "checkpoints" / str(STEPS)
    for path in (newest / "params" / "d").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    code, output, errors = run("translate", f"--workdir={workdir}", cache=cache)
    assert (code, output) == (1, "")
    assert f"checkpoint {newest} cannot be used" in error_line(errors)
    code, _, errors = run("train", TINY, f"--workdir={workdir}", cache=cache)
    assert code == 0, errors
    assert f"checkpoint {newest} cannot be used" in errors
    assert "going on from step 240, the newest whole checkpoint" in errors
    assert (workdir / "damaged" / str(STEPS)).is_dir(), "it is the user's to delete"
    assert differences(undisturbed, workdir) == []


@pytest.mark.slow
def test_a_run_whose_lengths_are_split_learns_the_same(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """Trains by a ring, evaluates and translates (which splits no lengths): as one device does."""
    workdir = tmp_path / "split"
    mesh = ("--config.mesh.data=2", "--config.mesh.sequence=2")
    steps = ("--config.training.steps=20", "--config.training.eval_every=20")
    arguments = ("train", TINY, f"--workdir={workdir}", *mesh, *steps)
    # Beams are query positions; three of them do not divide over two devices.
    translating = ("--config.training.eval_bleu=True", "--config.decoding.beam=3")
    # What is dropped is drawn for whole arrays: the same on every mesh.
    code, _, errors = run(*arguments, *translating, cache=cache, devices=4)
    assert code == 0, errors
    assert "attention by ring" in errors
    expected = [line for line in metrics(undisturbed) if line["step"] <= 20]
    losses = [line["loss"] for line in metrics(workdir) if line["kind"] == "train"]
    assert losses == pytest.approx([line["loss"] for line in expected], rel=1e-5)
    (evaluated,) = (line for line in metrics(workdir) if line["kind"] == "eval")
    assert "bleu" in evaluated


@pytest.mark.slow
def test_two_processes_train_save_and_go_on(cache: Path, tmp_path: Path) -> None:
    """Two real processes of two devices each: one run, stopped by a signal, continued, finished."""
    workdir = tmp_path / "together"
    first = together(workdir, cache, "--config.training.steps=90")
    wait_for_step(first[1], workdir, 20)
    first[1].send_signal(signal.SIGTERM)  # to one of them: all stop at the same step
    assert finish(first) == [42, 42]
    stopped = max(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )
    assert finish(together(workdir, cache, "--config.training.steps=90")) == [0, 0]
    lines = metrics(workdir)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(10, 91, 10))
    assert 20 <= stopped < 90


def together(workdir: Path, cache: Path, *more: str) -> list:
    """Starts two processes of one run."""
    port = free_port()
    mesh = ("--config.mesh.data=2", "--config.mesh.fsdp=2")
    return [
        start(
            *("train", TINY, f"--workdir={workdir}", *mesh),
            *more,
            "--config.distributed.enabled=True",
            f"--config.distributed.coordinator=127.0.0.1:{port}",
            "--config.distributed.processes=2",
            f"--config.distributed.process={index}",
            cache=cache,
            devices=2,
        )
        for index in range(2)
    ]


def finish(processes: list) -> list[int]:
    results = [process.communicate(timeout=300) for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, 42}, results
    return codes
