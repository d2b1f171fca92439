"""A terminal that is closed stops training, but not under nohup; the whole way: test_runs.py."""

import os
import signal
from collections.abc import Iterator
from unittest import mock

import jax
import pytest

from transformer import runtime
from transformer.checkpoints.checkpoints import Checkpoints
from transformer.training.preemption import StopRequest


@pytest.fixture
def default_action() -> Iterator[None]:
    """SIGHUP as a shell hands it down; as it was before, afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_what_nohup_ignores_stays_ignored(default_action: None) -> None:
    checkpoints = mock.Mock(spec=Checkpoints)
    assert signal.SIGHUP in runtime.stop_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert runtime.stop_signals() == [signal.SIGINT, signal.SIGTERM]
    with StopRequest(checkpoints) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested(1)


def test_several_processes_hear_of_it_by_sigterm(
    default_action: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the one signal that JAX tells the others of."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        with StopRequest(mock.Mock(spec=Checkpoints)):
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
