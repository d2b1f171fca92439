"""Progress and throughput, while a run trains: a bar on a terminal, else a line now and then."""

import contextlib
import sys
import time
from collections import deque
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

WINDOW = 20.0  # seconds over which the shown speed is averaged
QUIET = 10.0  # seconds without a line at most
STEADY = 10  # steps, or seconds, behind which a speed is to be believed
ABSURD = 12 * 3_600.0  # seconds left of which a word is said: were so many steps meant?


@dataclass(frozen=True)
class Speed:
    """How fast training is, and what share of its time it waits for data."""

    steps: float  # a second
    tokens: float  # a second
    waiting: float  # 0 to 1


class Speedometer:
    """Speed over the last `WINDOW` seconds, from the moments at which steps were done."""

    def __init__(self) -> None:
        # Seconds, step, tokens of that step, seconds that its batch was waited for.
        self._done: deque[tuple[float, int, int, float]] = deque()

    def step(self, now: float, step: int, tokens: int, waited: float) -> None:
        self._done.append((now, step, tokens, waited))
        while len(self._done) > 2 and now - self._done[0][0] > WINDOW:
            self._done.popleft()

    def pause(self) -> None:
        """What comes next is not training; its time does not count."""
        self._done.clear()

    def is_steady(self) -> bool:
        """Whether it has looked at enough to say how long training will take."""
        if len(self._done) < 2:
            return False
        return self._done[-1][1] - self._done[0][1] >= STEADY or (
            self._done[-1][0] - self._done[0][0] >= STEADY
        )

    def speed(self) -> Speed | None:
        """None before the second step is done: the first one's time is compilation's."""
        if len(self._done) < 2:
            return None
        first, last = self._done[0], self._done[-1]
        seconds = max(last[0] - first[0], 1e-9)
        tokens = sum(entry[2] for entry in self._done) - first[2]
        waited = sum(entry[3] for entry in self._done) - first[3]
        return Speed((last[1] - first[1]) / seconds, tokens / seconds, min(waited / seconds, 1.0))


class Progress:
    """Shows nothing: every process's but the first."""

    def step(self, step: int, loss: float, speed: Speed | None, *, log: bool) -> None:
        """`step` is done; `log` where it is one of those that are written down."""

    def compiling(self, step: int, shape: str) -> None:
        """`step` is the first of batches of a shape: the program for it is made or fetched."""

    def print(self, text: str) -> None:
        """A text of its own, which tears nothing."""

    def close(self) -> None:
        """The terminal as it was."""


def show(*, step: int, total: int) -> Progress:
    """A bar where standard error is a terminal, plain lines on it elsewhere."""
    return Bar(step, total) if sys.stderr is not None and sys.stderr.isatty() else Lines(total)


class Lines(Progress):
    """A line for the first step, each that is written down, and after every `QUIET` seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown: float | None = None

    def compiling(self, step: int, shape: str) -> None:
        self.print(f"step {step:,}: compiling for batches of {shape}")

    def step(self, step: int, loss: float, speed: Speed | None, *, log: bool) -> None:
        now = time.monotonic()
        if log or self._shown is None or now - self._shown >= QUIET:
            self._shown = now
            self.print(f"step {step:,}/{self._total:,}  {_status(self._total - step, loss, speed)}")

    def print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a reader that is gone must not end the training
            print(text, file=sys.stderr, flush=True)


class Bar(Progress):
    """A line that redraws itself. Whatever is printed through it appears above, whole."""

    def __init__(self, step: int, total: int) -> None:
        self._console = Console(stderr=True, force_terminal=True, soft_wrap=True)
        self._bar = RichProgress(
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            expand=True,
            refresh_per_second=4,
            redirect_stdout=False,  # standard output may be a file: it is not ours to move
        )
        self._task = self._bar.add_task("train", completed=step, total=total, status="compiling")
        self._total, self._shown = total, 0.0
        self._bar.start()

    def compiling(self, step: int, shape: str) -> None:
        self._bar.update(self._task, status=f"compiling for batches of {shape}")

    def step(self, step: int, loss: float, speed: Speed | None, *, log: bool) -> None:
        now = time.monotonic()
        if log or step >= self._total or now - self._shown > 0.2:
            self._shown = now
            status = _status(self._total - step, loss, speed)
            self._bar.update(self._task, completed=step, status=status)

    def print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone must not end the training
            self._console.print(text, markup=False, highlight=False, emoji=False)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._bar.stop()


def too_long(step: int, total: int, speed: Speed) -> str | None:
    """A warning where the steps that are left take absurdly long at this speed."""
    left = (total - step) / speed.steps
    if left < ABSURD:
        return None
    return (
        f"warning: at this speed the steps up to training.steps={total} take {_long(left)} more: "
        "set it, data.tokens_per_batch or the model smaller, or take a faster machine"
    )


def _long(seconds: float) -> str:
    hours = seconds / 3_600
    return f"{hours:,.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"


def _status(steps_left: int, loss: float, speed: Speed | None) -> str:
    if speed is None:
        return f"loss {loss:.3f}"
    left = duration(steps_left / speed.steps)
    steps = f"{speed.steps:.1f}" if speed.steps < 100 else f"{speed.steps:,.0f}"
    return (
        f"loss {loss:.3f}  {speed.tokens:,.0f} tokens/s  {steps} steps/s  "
        f"{speed.waiting:.1%} waiting for data  {left} left"
    )


def duration(seconds: float) -> str:
    """`0:42`, `12:07`, `3:12:07`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
