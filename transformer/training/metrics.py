"""What a run measures: `metrics.jsonl`, TensorBoard events, and what is seen while it trains.

`metrics.jsonl` in the run's directory holds one JSON object a line, in the order of events:

    {"kind": "train", "step": 100, "loss": 5.31, "tokens": 24512, ..., "clock": {...}}
    {"kind": "eval",  "step": 5000, "loss": 2.17, "bleu": 25.1, "samples": [...], "clock": {...}}
    {"kind": "event", "step": 7000, "event": "early stop", ..., "clock": {...}}

    kind     train: one step, that step's own values (not averages), every `training.log_every`
             steps and at the last | eval: the development set | event: anything worth noting once
    step     optimizer updates done
    tokens   train: target tokens of that step's batch, padding left out
    batch    train: a digest of which examples were in it, 8 hexadecimal digits
    samples  eval: [{"source": str, "reference": str, "translation": str}, ...]
    others   what the training step or the evaluation computed, by name; float32 values by their
             shortest digits; null where not finite
    clock    everything that depends on the clock, and nothing else does:
      time               seconds since 1970, when the line was written
      seconds            wall time of the run so far, over all its processes up to here
      steps_per_second, tokens_per_second, waiting_for_data    train only; over the steps since the
             last line; the last one is the share of that time spent waiting for batches, 0 to 1;
             null where nothing was timed (a process's first step, which compiles)

Two runs of one configuration are equal line by line but for `clock`, whether or not they were
stopped in between: a run that goes on from step r first cuts the file back to r. TensorBoard has
the numbers under `train/`, `eval/` and `clock/`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Array

from transformer import files
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.training import progress
from transformer.upstream.tensorboard import EventWriter

FILE = "metrics.jsonl"
Values = Mapping[str, Array | np.ndarray | np.generic | float | int]


@dataclass(frozen=True)
class Sample:
    """A development sentence, and what the model makes of it."""

    source: str
    reference: str
    translation: str


@dataclass(frozen=True)
class _Pending:
    """A step that the device may still be computing."""

    step: int
    values: Values
    tokens: int
    batch: str
    waited: float


@dataclass
class _Interval:
    """What happened since the last line."""

    start: float | None = None  # perf_counter's seconds; None: nothing timed yet
    steps: int = 0
    tokens: int = 0
    waited: float = 0.0


class Metrics:
    """Writes down what a run measures, and shows it on standard error.

    Only process 0 does; elsewhere all this is silent.
    Values come as scalars on the device and are fetched one step late, so that the device never
    waits for this process: `train(step, ...)` queues its own and records the step before. Call
    `flush()` before a checkpoint is saved, so that no line at or before its step can be missing.

    Args:
        workdir: the run's directory.
        step: the step that training goes on from; later lines are cut off.
        total_steps: where it will end.
        log_every: steps from one train line to the next.
        evaluated: False where the evaluation at `step` is still to come.
        minutes: after which training ends anyhow; 0 = never.

    Raises:
        UserError: `metrics.jsonl` is damaged.
    """

    def __init__(
        self,
        workdir: AnyPath,
        *,
        step: int,
        total_steps: int,
        log_every: int,
        evaluated: bool = True,
        minutes: float = 0.0,
    ) -> None:
        self._log_every, self._total = log_every, total_steps
        self._pending: _Pending | None = None
        self._interval = _Interval()
        self._speed = progress.Speedometer()
        self._began = time.perf_counter()
        self._file, self._board = None, None
        self._noted: list[dict[str, Any]] = []  # events of before
        self._progress = progress.Progress()
        self._unhurried = minutes > 0.0  # or has been told how long it takes
        self.lines = 0  # in the file
        if jax.process_index() == 0:
            path = workdir / FILE
            lines = cut(path, step, evaluated=evaluated)
            self.lines = len(lines)
            self._began -= lines[-1]["clock"]["seconds"] if lines else 0.0
            events = [line for line in lines if line["kind"] == "event"]
            self._noted = [{k: v for k, v in e.items() if k != "clock"} for e in events]
            self._file = files.Appending(path)
            self._board = EventWriter(workdir / "tensorboard", first=step + 1)
            self._progress = progress.show(step=step, total=total_steps)

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all its processes."""
        return time.perf_counter() - self._began

    def train(self, step: int, values: Values, *, tokens: int, batch: str, waited: float) -> None:
        """Takes a step's values and records those of the step before.

        Args:
            step: optimizer updates done, this one included.
            values: scalars by name, on the device or not; among them `loss`.
            tokens: target tokens of the batch, padding left out.
            batch: a digest of which examples were in it.
            waited: seconds that the loop waited for this batch.
        """
        self._interval.waited += waited
        self._settle()
        self._pending = _Pending(step, values, tokens, batch, waited)

    def compiling(self, step: int, shape: str) -> None:
        """Says that the next step compiles. Its time is not that of a step."""
        self._settle()
        self._speed.pause()
        self._progress.compiling(step, shape)

    def evaluation(self, step: int, values: Values, samples: Sequence[Sample] = ()) -> None:
        """Records and prints what an evaluation found. The next steps' speed is timed from here."""
        self.flush()
        numbers = _numbers(values)
        extra = {"samples": [asdict(sample) for sample in samples]} if samples else {}
        self._write("eval", step, {**numbers, **extra}, {})
        self._to_board("eval", step, numbers)
        if self._board and samples:
            self._board.text("eval/samples", _markdown(samples), step)
        text = "  ".join(f"{name} {_short(value)}" for name, value in numbers.items())
        self.print(f"evaluation at step {step:,}: {text}")
        for sample in samples:
            self.print(f"  source       {sample.source}")
            self.print(f"  reference    {sample.reference}")
            self.print(f"  translation  {sample.translation}\n")
        self._speed.pause()
        self._interval = _Interval(time.perf_counter())

    def event(self, step: int, event: str, **fields: Any) -> None:
        """Records that something happened, with JSON values that say what.

        Once: a run that was killed and comes to the same point again has noted it already.
        """
        if self._pending and self._pending.step <= step:
            self._settle()
        content = {"event": event, **fields}
        if {"kind": "event", "step": step, **content} not in self._noted:
            self._write("event", step, content, {})

    def print(self, text: str) -> None:
        """Shows a text without tearing the bar."""
        self._progress.print(text)

    def flush(self) -> None:
        """Records what is queued, and has it on disk."""
        self._settle()
        if self._file and self._board:
            self._file.sync()
            self._board.flush()

    def close(self) -> None:
        """Records what is queued and closes all; whatever happened before, the bar goes too."""
        try:
            self.flush()
        finally:
            self._progress.close()
            if self._file and self._board:
                self._board.close()
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _settle(self) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        values = _numbers(jax.device_get(dict(pending.values)))  # waits until the step is done
        now, interval = time.perf_counter(), self._interval
        if interval.start is None:  # this step compiled: timing starts behind it
            self._interval = interval = _Interval(now)
        else:
            interval.steps += 1
            interval.tokens += pending.tokens
        self._speed.step(now, pending.step, pending.tokens, pending.waited)
        log = pending.step % self._log_every == 0 or pending.step == self._total
        loss = math.nan if values["loss"] is None else values["loss"]
        speed = self._speed.speed()
        self._progress.step(pending.step, loss, speed, log=log)
        if speed and not self._unhurried and self._speed.is_steady():
            if warning := progress.too_long(pending.step, self._total, speed):
                self.print(warning)
            self._unhurried = warning is not None
        if log:
            rates = _rates(interval, now)
            more = {"tokens": pending.tokens, "batch": pending.batch}
            self._write("train", pending.step, {**values, **more}, rates)
            self._to_board("train", pending.step, values)
            self._to_board("clock", pending.step, rates)
            self._interval = _Interval(now)

    def _write(self, kind: str, step: int, content: dict, clock: dict) -> None:
        if self._file:
            clock = {"time": time.time(), "seconds": self.seconds, **clock}
            line = {"kind": kind, "step": step, **content, "clock": clock}
            self._file.write(f"{files.as_json(line, allow_nan=False)}\n".encode())
            self.lines += 1

    def _to_board(self, group: str, step: int, values: Mapping[str, float | None]) -> None:
        if self._board:
            for name, value in values.items():
                if value is not None:
                    self._board.scalar(f"{group}/{name}", value, step)


def read(workdir: AnyPath) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, in order; none where there is no file.

    A last line that was not finished is left out.

    Raises:
        UserError: another line is not what this module writes.
    """
    return _parse(workdir / FILE)


def cut(path: AnyPath, step: int, *, evaluated: bool = True) -> list[dict[str, Any]]:
    """Cuts a metrics file back to what a run knew at `step`, and gives that.

    Where the evaluation at that step is still to come, what was written of it goes, too.
    """
    lines = [line for line in _parse(path) if line["step"] <= step]
    if not evaluated:
        is_it = [line["step"] == step and line["kind"] == "eval" for line in lines]
        lines = lines[: is_it.index(True)] if any(is_it) else lines
    text = "".join(files.as_json(line) + "\n" for line in lines)
    files.write(path, text)
    return lines


def _parse(path: AnyPath) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # behind the last newline: nothing, or a torn line
    result = []
    for number, line in enumerate(lines, start=1):
        try:
            content = files.parse_json(line)
            if not _is_line(content):
                raise files.Damaged("its kind, step, clock or nll is none")
            result.append(content)
        except (files.Damaged, KeyError, TypeError, OverflowError):
            raise UserError(
                f"{path}, line {number} is damaged: delete that line, or the file to do without "
                "the run's past metrics"
            ) from None
    return result


def _is_line(content: dict[str, Any]) -> bool:
    """Whether it has what its readers take; raises where what they take is missing."""
    nll = content.get("nll") if content["kind"] == "eval" else None
    return (
        content["kind"] in ("train", "eval", "event")
        and type(content["step"]) is int
        and content["step"] >= 0
        and (nll is None or (isinstance(nll, float | int) and math.isfinite(nll)))
        and isinstance(content["clock"]["seconds"], float | int)
        and math.isfinite(content["clock"]["seconds"])
    )


def _rates(interval: _Interval, now: float) -> dict[str, float | None]:
    seconds = now - interval.start if interval.start is not None else 0.0
    if interval.steps == 0 or seconds <= 0.0:
        return {"steps_per_second": None, "tokens_per_second": None, "waiting_for_data": None}
    return {
        "steps_per_second": interval.steps / seconds,
        "tokens_per_second": interval.tokens / seconds,
        "waiting_for_data": min(interval.waited / seconds, 1.0),
    }


def _numbers(values: Values) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> float | None:
    """A Python number that JSON can hold; float32 by the shortest digits that mean it."""
    array = np.asarray(value)
    if np.issubdtype(array.dtype, np.integer):
        return int(array)
    if array.dtype.itemsize <= 4:
        array = np.asarray(float(str(array.astype(np.float32))))
    return float(array) if np.isfinite(array) else None


def _short(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _markdown(samples: Sequence[Sample]) -> str:
    rows = [f"| {s.source} | {s.reference} | {s.translation} |" for s in samples]
    return "\n".join(["| source | reference | translation |", "| --- | --- | --- |", *rows])
