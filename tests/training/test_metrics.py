"""What is written down is complete, comparable and survives being stopped at any moment."""

import io
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import UserError
from transformer.files import leftovers
from transformer.training import metrics, progress
from transformer.training.metrics import Metrics, Sample


def run(workdir: Path, *, start: int = 0, stop: int = 11, total: int = 11) -> None:
    """Trains from `start` to `stop`; evaluates at 6 and, with a sample, at 7."""
    with Metrics(workdir, step=start, total_steps=total, log_every=3) as record:
        if start == 0:
            record.event(0, "start", seed=19)
        for step in range(start + 1, stop + 1):
            values = {"loss": jnp.float32(1.1 / step), "learning_rate": jnp.float32(step)}
            record.train(step, values, tokens=17 * step, batch="0a", waited=0.0)
            if step == 6:
                record.evaluation(step, {"loss": jnp.float32(0.4)})
            if step == 7:
                sample = Sample("la casa roja", "the red house", "the house")
                record.evaluation(step, {"loss": jnp.float32(0.3), "bleu": 31.25}, [sample])


def without_clock(workdir: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "clock"} for line in metrics.read(workdir)]


def test_lines_follow_the_schema(tmp_path: Path) -> None:
    run(tmp_path)
    lines = metrics.read(tmp_path)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("event", 0),
        ("train", 3),
        ("train", 6),
        ("eval", 6),
        ("eval", 7),
        ("train", 9),
        ("train", 11),  # the last step counts, multiple of three or not
    ]
    train = {"kind", "step", "loss", "learning_rate", "tokens", "batch", "clock"}
    rates = {"steps_per_second", "tokens_per_second", "waiting_for_data"}
    assert set(lines[1]) == train and set(lines[1]["clock"]) == {"time", "seconds", *rates}
    assert set(lines[4]["clock"]) == {"time", "seconds"}
    assert lines[2]["tokens"] == 17 * 6
    assert lines[4]["samples"] == [
        {"source": "la casa roja", "reference": "the red house", "translation": "the house"}
    ]
    assert np.float32(lines[1]["loss"]) == np.float32(1.1 / 3)  # bit by bit ...
    assert len(json.dumps(lines[1]["loss"])) <= 10  # ... in no more digits than that takes
    seconds = [line["clock"]["seconds"] for line in lines]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("stopped", [2, 3, 7, 10])
def test_a_stopped_run_writes_what_an_unstopped_one_does(tmp_path: Path, stopped: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run(whole)
    run(parts, stop=min(stopped + 2, 11))  # went on for two steps after its last checkpoint
    known = [line for line in metrics.read(parts) if line["step"] <= stopped]
    before = known[-1]["clock"]["seconds"]
    run(parts, start=stopped)
    assert without_clock(parts) == without_clock(whole)
    if stopped == 10:
        assert metrics.read(parts)[-1]["clock"]["seconds"] > before  # time goes on, too


def test_starting_anew_keeps_nothing(tmp_path: Path) -> None:
    run(tmp_path, stop=5)
    run(tmp_path)
    assert [line["step"] for line in metrics.read(tmp_path)] == [0, 3, 6, 6, 7, 9, 11]


def test_an_evaluation_that_is_to_come_is_not_written_twice(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / metrics.FILE
    kept = metrics.cut(file, 6, evaluated=False)
    assert [line["kind"] for line in kept] == ["event", "train", "train"]
    assert metrics.read(tmp_path) == kept


def test_a_torn_last_line_is_dropped_and_a_damaged_one_named(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / metrics.FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])  # killed while it wrote
    assert [line["step"] for line in metrics.read(tmp_path)] == [0, 3, 6, 6, 7, 9]
    assert [line["step"] for line in metrics.cut(file, 6)] == [0, 3, 6, 6]
    assert file.read_bytes().count(b"\n") == 4 and not list(leftovers(file))

    file.write_bytes(whole.replace(b'"step": 6', b'"stop": 6'))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 3 is damaged"):
        metrics.cut(file, 3)


def test_values_are_fetched_one_step_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[float] = []
    get = jax.device_get

    def device_get(values: dict) -> dict:
        fetched.append(float(values["loss"]))
        return get(values)

    monkeypatch.setattr(jax, "device_get", device_get)
    with Metrics(tmp_path, step=0, total_steps=5, log_every=1) as record:
        for step in (1, 2, 3):
            record.train(step, {"loss": jnp.float32(step)}, tokens=2, batch="0a", waited=0.0)
            assert fetched == list(range(1, step))
        record.flush()
        assert fetched == [1, 2, 3]


def test_speed_leaves_out_compilation_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    with Metrics(tmp_path, step=0, total_steps=9, log_every=3) as record:
        for step in range(1, 10):
            record.train(step, {"loss": 1.0}, tokens=5, batch="0a", waited=0.5)
            now += 60.0 if step == 1 else 2.0  # until this one is done
            if step == 6:
                record.flush()
                now += 100.0
                record.evaluation(6, {"loss": 1.0})
    clocks = [line["clock"] for line in metrics.read(tmp_path) if line["kind"] == "train"]
    for clock in clocks:
        assert clock["steps_per_second"] == pytest.approx(1 / 2)
        assert clock["tokens_per_second"] == pytest.approx(5 / 2)
        assert clock["waiting_for_data"] == pytest.approx(0.5 / 2, abs=0.13)
    assert clocks[-1]["seconds"] == pytest.approx(60 + 8 * 2 + 100)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with Metrics(tmp_path, step=0, total_steps=2, log_every=1) as record:
        values = {"loss": jnp.float32(jnp.nan), "norm": jnp.float32(jnp.inf), "count": jnp.int32(7)}
        record.train(1, values, tokens=3, batch="0a", waited=0.0)
        record.event(1, "diverged", reason="loss is NaN")
    train, event = without_clock(tmp_path)
    assert train["loss"] is None and train["norm"] is None and train["count"] == 7
    assert event == {"kind": "event", "step": 1, "event": "diverged", "reason": "loss is NaN"}


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    run(tmp_path)
    events = b"".join(f.read_bytes() for f in (tmp_path / "tensorboard").iterdir())
    for name in (b"train/loss", b"eval/bleu", b"clock/tokens_per_second", b"the red house"):
        assert name in events


def test_other_processes_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run(tmp_path)
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_without_a_terminal_there_are_plain_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/11  loss 1.100"), "the first is said, whatever log_every"
    assert lines[1].startswith("step 3/11  loss 0.367") and "\x1b" not in "".join(lines)
    assert any(line == "evaluation at step 7: loss 0.3  bleu 31.25" for line in lines)
    assert any(line.split() == ["translation", "the", "house"] for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_prints_stand_above_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Metrics(tmp_path, step=0, total_steps=11, log_every=3) as record:
        for step in (1, 2, 3):
            record.train(step, {"loss": 0.5}, tokens=13, batch="0a", waited=0.0)
        record.print("a line [of] its own " * 8)  # wider than the screen, and no markup
        record.flush()
    shown = stream.getvalue()
    assert "3/11" in shown and "loss 0.500" in shown and "steps/s" in shown
    assert "a line [of] its own " * 8 in shown
    assert shown.endswith("\x1b[?25h")  # the cursor is back


def test_something_is_said_every_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first step, too; metrics.jsonl is none the longer."""
    now = 1_000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Metrics(tmp_path, step=0, total_steps=30, log_every=10) as record:
        record.compiling(1, "8x16+24")
        for step in range(1, 31):
            record.train(step, {"loss": 1.0}, tokens=5, batch="0a", waited=0.0)
            now += 60.0 if step in (4, 5) else 1.0
    shown = [line.split(" ")[1].rstrip(":") for line in capsys.readouterr().err.splitlines()]
    assert shown == [*("1", "1/30", "4/30", "5/30"), *("10/30", "20/30", "30/30")]
    assert [line["step"] for line in metrics.read(tmp_path)] == [10, 20, 30]


@pytest.mark.parametrize(
    ("seconds", "minutes", "told"),
    [(30.0, 0.0, "3 days"), (5.4, 0.0, "15 hours"), (2.0, 0.0, ""), (30.0, 5.0, "")],
)
def test_an_absurd_time_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    minutes: float,
    told: str,
) -> None:
    """The speed of steps alone counts: compiling takes long as well, and is over soon."""
    now = 1_000.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    with Metrics(tmp_path, step=0, total_steps=10_000, log_every=10, minutes=minutes) as record:
        for step in range(1, 31):
            if step < 4:
                record.compiling(step, "8x16+24")
                now += 300.0
            record.train(step, {"loss": 1.0}, tokens=5, batch="0a", waited=0.0)
            now += seconds
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == bool(told)
    assert not told or f"training.steps=10000 take {told} more" in lines[0]


def test_lines_are_counted_as_they_are_kept(tmp_path: Path) -> None:
    """A checkpoint remembers how many there were: what is missing at the next start is noticed."""
    run(tmp_path, stop=7)
    with Metrics(tmp_path, step=6, total_steps=11, log_every=3) as record:
        assert record.lines == 4
        record.event(6, "noticed")
        assert record.lines == 5


def test_speed_and_durations() -> None:
    meter = progress.Speedometer()
    meter.step(0.0, 1, 1_000, 9.0)
    assert meter.speed() is None
    meter.step(2.0, 2, 30, 0.5)
    meter.step(4.0, 3, 50, 0.5)
    assert meter.speed() == progress.Speed(steps=0.5, tokens=20.0, waiting=0.25)
    meter.step(4.0 + progress.WINDOW, 4, 60, 2 * progress.WINDOW)
    window = progress.WINDOW
    assert meter.speed() == progress.Speed(steps=1 / window, tokens=60 / window, waiting=1.0)
    meter.pause()
    assert meter.speed() is None
    assert [progress.duration(s) for s in (42.2, 727, 11_527)] == ["0:42", "12:07", "3:12:07"]


def test_an_event_is_noted_once(tmp_path: Path) -> None:
    """A run that rolled back to step 4, was killed, and comes to the same end again from there."""
    for _ in range(2):
        with metrics.Metrics(tmp_path, step=4, total_steps=9, log_every=1) as record:
            record.event(4, "rolled back", skipped_batches=[7])
            record.event(4, "rolled back", skipped_batches=[8])
    assert [line["skipped_batches"] for line in metrics.read(tmp_path)] == [[7], [8]]


def test_an_event_stands_behind_its_step_and_before_the_next(tmp_path: Path) -> None:
    """Though the next is under way when it is noticed."""
    with metrics.Metrics(tmp_path, step=0, total_steps=9, log_every=1) as record:
        for step in (1, 2):
            record.train(step, {"loss": 1.0}, tokens=1, batch="0a", waited=0.0)
        record.event(1, "skipped")
        record.event(2, "out of time")
    kinds = [(line["kind"], line["step"]) for line in metrics.read(tmp_path)]
    assert kinds == [("train", 1), ("event", 1), ("train", 2), ("event", 2)]


@pytest.mark.parametrize(
    "line",
    [
        *(b"null", b"[]", b"3", b"{}", b"[" * 9_000),
        b'{"kind": 1, "step": 1, "clock": {"seconds": 1}}',
        b'{"kind": "train", "step": "1", "clock": {"seconds": 1}}',
        b'{"kind": "train", "step": 1, "clock": null}',
        b'{"kind": "train", "step": true, "clock": {"seconds": 1}}',
        b'{"kind": "train", "step": -1, "clock": {"seconds": 1}}',
        b'{"kind": "train", "step": 1, "clock": {"seconds": 1' + b"0" * 400 + b"}}",
        b'{"kind": "other", "step": 1, "clock": {"seconds": 1}}',
        b'{"kind": "eval", "step": 1, "nll": "x", "clock": {"seconds": 1}}',
    ],
)
def test_a_line_of_a_wrong_shape_is_named(tmp_path: Path, line: bytes) -> None:
    good = b'{"kind": "train", "step": 1, "clock": {"seconds": 1.0}}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + b"\n" + good)
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is damaged"):
        metrics.read(tmp_path)


def test_separators_in_a_sentence_end_no_line(tmp_path: Path) -> None:
    sample = {"source": "a\u2028b\x85c\x0bd", "reference": "", "translation": ""}
    line = {"kind": "eval", "step": 1, "samples": [sample], "clock": {"seconds": 1.0}}
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert metrics.read(tmp_path) == [line]


def test_a_full_disk_is_named_by_the_file(tmp_path: Path) -> None:
    """The error of a write knows none."""
    full = mock.Mock(spec=io.FileIO)
    full.write.side_effect = OSError(28, "No space left")
    with Metrics(tmp_path, step=0, total_steps=9, log_every=1) as record:
        assert record._file
        whole, record._file._file = record._file._file, full
        with pytest.raises(OSError, match=r"No space left: '.*/metrics\.jsonl'"):
            record.event(1, "out of space")
        record._file._file = whole
