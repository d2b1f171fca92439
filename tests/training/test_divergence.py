"""Steps that go wrong: judged alike everywhere, left out or skipped, and written down."""

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.faults import differences
from tests.support.processes import ROOT, TINY, error_line, metrics, run, start
from transformer import testing
from transformer.config import DivergenceConfig
from transformer.data import Batches
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.models import build_model
from transformer.training.divergence import (
    DivergenceMonitor,
    LossBaseline,
    Rollback,
    SkippedBatches,
    Trouble,
    judge,
)
from transformer.training.metrics import Metrics
from transformer.training.step import StateFactory, make_train_step

pytestmark = pytest.mark.optax
CONFIG = DivergenceConfig(action="stop", spike=2.0, window=3, skip_batches=1, max_times=2)
FAULTY = [sys.executable, str(ROOT / "tests/support/faulty.py")]


def test_a_spike_is_far_above_the_mean_of_the_good_steps() -> None:
    """Not before enough were seen; what is bad moves no mean; NaN and infinity always count."""
    baseline, found = LossBaseline.start(), []
    judged = jax.jit(lambda baseline, loss, norms: judge(baseline, loss, norms, CONFIG))
    # The mean of the first three is 5, then 6.63 (a third of the way to 9.9), then 8.76.
    losses = [9.0, 4.0, 2.0, 9.9, 13.0, 17.6, np.nan, np.inf, 9.0]
    for loss in losses:
        trouble, baseline = judged(baseline, jnp.float32(loss), jnp.ones(2))
        found.append((int(trouble), int(baseline.consecutive_bad)))
    none, spike, nan = Trouble.NONE, Trouble.SPIKE, Trouble.NOT_FINITE
    assert found == [*[(none, 0)] * 5, (spike, 1), (nan, 2), (nan, 3), (none, 0)]
    trouble, _ = judged(baseline, jnp.float32(1.0), jnp.array([1.0, jnp.inf]))
    assert int(trouble) == nan
    trouble, after = judged(baseline, jnp.float32(1e3), jnp.ones(2))
    assert int(trouble) == spike and float(after.loss) == float(baseline.loss)


def test_a_skipped_update_changes_nothing_but_the_step() -> None:
    config = testing.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0)
    batch = testing.random_batch(vocab_size=config.vocab_size, rows=4)
    layout, model = testing.layout(), build_model(config)
    factory = StateFactory(model, optax.adam(0.01), layout, testing.TRAINING)
    schedule, skip = optax.constant_schedule(0.01), dataclasses.replace(CONFIG, action="skip")
    step = layout.jit(make_train_step(model, optax.adam(0.01), schedule, testing.TRAINING, skip))
    good, found = step(factory.create(0), batch)
    assert int(found.trouble) == Trouble.NONE
    weights = batch.target.weights.at[0, 0].set(jnp.nan)
    poison = batch.replace(target=batch.target.replace(weights=weights))
    bad, found = step(good, poison)
    assert (int(found.trouble), int(found.consecutive_bad)) == (Trouble.NOT_FINITE, 1)
    assert int(bad.step) == 2
    same = [(bad.params, good.params), (bad.opt_state, good.opt_state)]
    for actual, expected in same:
        assert jax.tree.all(jax.tree.map(np.array_equal, actual, expected))
    assert np.isfinite(float(step(bad, batch)[1].loss))


def test_only_batches_that_the_state_has_not_learned_from_are_skipped() -> None:
    rollback = Rollback(9, "", [6, 7, 8], [])
    assert SkippedBatches((2,), 1).after(rollback, first=7) == SkippedBatches((2, 7, 8), 2)


@pytest.mark.parametrize(
    ("saved", "told"), [(True, "before it are good"), (False, "No checkpoint had been saved")]
)
def test_only_checkpoints_that_there_are_are_good(saved: bool, told: str) -> None:
    batches: Any = mock.Mock(spec=Batches, position=lambda step: step, examples=lambda step: [7])
    skipped = SkippedBatches()
    monitor = DivergenceMonitor(CONFIG, mock.Mock(spec=Metrics), batches, skipped, lambda: saved)
    monitor.step(1, jnp.int32(Trouble.NOT_FINITE), jnp.int32(1))
    with pytest.raises(UserError, match=f"diverged at step 1.*{told}"):
        monitor.settle()


def faulty_arguments(workdir: Path, which: int, *more: str) -> tuple[str, ...]:
    arguments = ("train", TINY, f"--workdir={workdir}", "--config.training.steps=60")
    often = ("--config.checkpoints.every=20", "--config.training.eval_every=60")
    return (str(which), *arguments, *often, *more)


def faulty(workdir: Path, cache: Path, which: int, *more: str) -> tuple[int, str, str]:
    """Trains with a fault in the step of one batch."""
    return run(*faulty_arguments(workdir, which, *more), cache=cache, program=FAULTY)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path) -> tuple[Path, int]:
    """A run without fault, and what its batch of step 33 is known by."""
    workdir = cache / "whole"
    code, _, errors = faulty(workdir, cache, -1)
    assert code == 0, errors
    batch = Experiment.open(workdir).train_batches[32]
    return workdir, int(np.sum(batch.source.ids))


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
def test_a_fault_in_the_step(
    whole: tuple[Path, int], cache: Path, tmp_path: Path, action: str
) -> None:
    """One batch of a real run gives NaN: noted with its examples, and dealt with as asked."""
    undisturbed, which = whole
    workdir = tmp_path / "run"
    change = f"--config.divergence.action={action}"
    code, _, errors = faulty(workdir, cache, which, change)
    lines, expected = metrics(workdir), metrics(undisturbed)
    (event,) = (line for line in lines if line["kind"] == "event")
    examples = Experiment.open(undisturbed).train_batches.examples(32).tolist()
    assert event["examples"] == examples and "not finite" in event["reason"]
    assert lines[: lines.index(event)] == expected[: lines.index(event)]
    if action == "stop":
        assert (code, event["step"], event["event"]) == (1, 33, "diverged")
        assert "training diverged at step 33" in error_line(errors)
        saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
        assert saved == [20]
        return
    assert code == 0, errors
    assert lines[-1]["step"] == 60 and np.isfinite(lines[-1]["loss"])
    if action == "skip":
        assert (event["step"], event["event"], event["batches"]) == (33, "skipped", [32])
        return
    assert (event["step"], event["event"]) == (20, "rolled back")
    assert event["from"] == 33 and event["skipped_batches"] == [32]
    # The batches after it come one step earlier than they would have.
    shifted = Experiment.open(undisturbed).train_batches
    by_step = {line["step"]: line["batch"] for line in lines if line["kind"] == "train"}
    assert by_step[40] == shifted.batch_digest(40) and by_step[30] == shifted.batch_digest(29)
    # Killed and continued after that, the same: the checkpoint knows what is passed over.
    code, _, errors = faulty(workdir, cache, which, change, "--config.training.steps=70")
    assert code == 0, errors
    by_step = {line["step"]: line["batch"] for line in metrics(workdir) if line["kind"] == "train"}
    assert by_step[70] == shifted.batch_digest(70)


@pytest.mark.parametrize(
    "action",
    [
        pytest.param("rollback", marks=pytest.mark.slow),
        pytest.param("skip", marks=pytest.mark.long),
    ],
)
def test_going_on_amid_faults(
    whole: tuple[Path, int], cache: Path, tmp_path: Path, action: str
) -> None:
    """Killed and stopped before, while and after a batch goes wrong: nothing is different."""
    more = (f"--config.divergence.action={action}", "--config.training.log_every=1")
    workdir, again = tmp_path / "run", tmp_path / "again"
    code, _, errors = faulty(workdir, cache, whole[1], *more)
    assert code == 0, errors
    file = again / "metrics.jsonl"
    for until in (4, 12, 23, 34, 51):  # lines; 23 is a stop between checkpoint and fault
        arguments = faulty_arguments(again, whole[1], *more)
        process = start(*arguments, cache=cache, program=FAULTY)
        while process.poll() is None and (
            not file.exists() or file.read_text().count("\n") < until
        ):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM if until % 2 else signal.SIGKILL)
        process.communicate(timeout=120)
    code, _, errors = faulty(again, cache, whole[1], *more)
    assert code == 0, errors
    assert differences(workdir, again) == []


@pytest.mark.slow
def test_a_fault_in_the_data(cache: Path, tmp_path: Path) -> None:
    """A pair that is noise makes the loss spike: its batches are passed over."""
    numbers = ["uno", "dos", "tres", "cuatro"]
    clean = [f"{a} {b}" for a in numbers for b in numbers] * 20
    noise = " ".join(np.random.default_rng(0).permutation([*"abcdefghijklmnopqrstuvwxyz"] * 2)[:40])
    for side in ("source", "target"):
        (tmp_path / side).write_text("\n".join([*clean[:200], noise, *clean[200:]]) + "\n")
    workdir = tmp_path / "run"
    files = [f"--config.data.text.train_{side}={tmp_path}/{side}" for side in ("source", "target")]
    code, _, errors = run(
        *("train", TINY, f"--workdir={workdir}", "--config.data.source=text", *files),
        "--config.data.side=source",  # both sides are one text
        *("--config.training.steps=150", "--config.training.eval_every=0"),
        *("--config.checkpoints.every=25", "--config.optimizer.schedule_options.scale=0.1"),
        *("--config.model.dropout=0.0", "--config.divergence.action=rollback"),
        *("--config.divergence.spike=1.5", "--config.divergence.window=30"),
        cache=cache,
    )
    assert code == 0, errors
    events = [line for line in metrics(workdir) if line.get("event") == "rolled back"]
    assert events and all(200 in event["examples"] for event in events)
    assert all(event["reason"] == "the loss spiked" for event in events)
    assert json.loads((workdir / "config.json").read_text())["divergence"]["spike"] == 1.5
