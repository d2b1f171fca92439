"""Being told to stop: Ctrl-C, SIGTERM from a scheduler that wants the machine back, or SIGHUP from
a terminal that is closed."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

import jax

from transformer import runtime, streams
from transformer.checkpoints.checkpoints import Checkpoints


class Interrupted(BaseException):
    """Raised by a signal where `StopRequest.interrupting` allows it."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGHUP while entered, so that training ends between two steps.

    In a run of several processes a signal to any of them stops all at the same step, by JAX's
    preemption service, which owns SIGTERM there. A second Ctrl-C interrupts at once.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._alone = jax.process_count() == 1
        self._asked = self._agreed = False
        self._interrupting = False
        self._before: dict[int, signal.Handlers | int | None] = {}

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; every process must ask at every step."""
        if self._alone:
            return self._asked
        # Once reached it stays so, also where the run has gone back to an earlier step since.
        self._agreed = self._agreed or self._checkpoints.reached_preemption(step)
        return self._agreed

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it a signal raises Interrupted at once: for work that can be done again.

        Only where this process is the run's only one; several must stop at the same place.
        """
        if self._alone and self._asked:
            raise Interrupted
        self._interrupting = self._alone
        try:
            yield
        finally:
            self._interrupting = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        streams.say(b"\nstopping after this step; Ctrl-C again stops at once, unsaved\n")
        if self._interrupting:
            self._interrupt(number, frame)
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raises Interrupted, and again a second later where something swallowed it."""
        if self._interrupting:
            lost = _is_swallowing(frame)
            signal.setitimer(signal.ITIMER_REAL, 0.01 if lost else 1.0)
            if not lost:
                raise Interrupted

    def __enter__(self) -> Self:
        # Python takes signals in its main thread only: in another there are none to note.
        if threading.current_thread() is threading.main_thread():
            for number in runtime.stop_signals():
                if number == signal.SIGTERM and not self._alone:
                    continue  # JAX's own
                self._before[number] = signal.signal(number, self._note)  # pyright: ignore
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)  # pyright: ignore
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _is_swallowing(frame: FrameType | None) -> bool:
    """Whether an exception raised here would be printed and forgotten: in a garbage collection."""
    while frame is not None:
        if frame.f_code.co_name in ("_xla_gc_callback", "__del__"):
            return True
        frame = frame.f_back
    return False
