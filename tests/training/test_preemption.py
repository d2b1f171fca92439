"""Signals at awkward moments: before there is anything to save, and amid an evaluation."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.faults import differences
from tests.support.processes import TINY, metrics, run, start, wait_for_step
from transformer.checkpoints.checkpoints import Checkpoints
from transformer.training.preemption import Interrupted, StopRequest

pytestmark = pytest.mark.slow
# An evaluation that translates with a wide beam takes seconds, half of them to compile.
SLOW = (
    *("--config.training.steps=40", "--config.training.eval_every=20"),
    *("--config.training.eval_bleu=True", "--config.data.casa_roja.dev_size=900"),
    *("--config.checkpoints.every=100", "--config.checkpoints.keep_best=2"),
)


def catches(process: subprocess.Popen, number: signal.Signals) -> bool:
    """Whether the command has come so far: until then a signal ends Python, as it ends any."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(caught & 1 << (number - 1))


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 3.0])
def test_a_signal_before_training_loses_nothing(tmp_path: Path, seconds: float) -> None:
    """While modules load, the tokenizer is trained, programs compile: exit 42, soon."""
    workdir = tmp_path / "run"
    process = start("train", TINY, f"--workdir={workdir}", cache=tmp_path)
    while not catches(process, signal.SIGTERM):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 42, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_evaluation_is_broken_off_and_made_up_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The state is saved at once; the same command evaluates it, and ends as if undisturbed."""
    workdir, expected = tmp_path / "stopped", tmp_path / "undisturbed"
    code, _, errors = run("train", TINY, f"--workdir={expected}", *SLOW, cache=tmp_path)
    assert code == 0, errors
    process = start("train", TINY, f"--workdir={workdir}", *SLOW, cache=tmp_path)
    wait_for_step(process, workdir, 20)
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 42, errors
    assert [line["kind"] for line in metrics(workdir)] == ["train", "train"], "it was evaluating"
    meta = json.loads((workdir / "checkpoints/20/meta/metadata").read_text())
    assert meta["evaluated"] is False and meta["score"] is None
    code, _, errors = run("train", TINY, f"--workdir={workdir}", *SLOW, cache=tmp_path)
    assert code == 0, errors
    assert differences(expected, workdir) == []
    meta = json.loads((workdir / "checkpoints/20/meta/metadata").read_text())
    assert meta["evaluated"] and meta["score"] == metrics(workdir)[2]["loss"]


def test_an_interrupt_is_not_lost_in_a_garbage_collection() -> None:
    """Where the signal finds Python, an exception may be printed and forgotten: it comes again."""

    class Careless:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)  # the handler runs here

    checkpoints = mock.Mock(spec=Checkpoints)
    seen = []
    with pytest.raises(Interrupted), StopRequest(checkpoints) as stop, stop.interrupting():
        careless = Careless()
        del careless
        seen.append("after")
        time.sleep(5.0)
        seen.append("too late")
    assert seen == ["after"]
    with StopRequest(checkpoints) as stop, pytest.raises(Interrupted), stop.interrupting():
        with contextlib.suppress(Interrupted):  # as JAX does here and there
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        time.sleep(5.0)
        seen.append("too late")
    assert seen == ["after"]
