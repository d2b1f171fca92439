"""What a training says of itself: the loop in this process, with a step that learns nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax
import pytest
from ml_collections import ConfigDict

from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.runtime import Exit
from transformer.training import Callback, program, train
from transformer.training.step import StepMetrics

pytestmark = pytest.mark.optax


def experiment(folder: Path, rate: float, steps: int) -> Experiment:
    """Cosine decay from `rate` over five steps, in a run of `steps`."""
    config = get_config()
    config.data.cache_dir = str(folder / "cache")
    config.optimizer.schedule = "cosine_decay"
    config.optimizer.schedule_options = ConfigDict({"init_value": rate, "decay_steps": 5})
    config.training.steps, config.training.log_every = steps, 5
    config.training.eval_every = 0
    return Experiment(from_dict(config.to_dict()), folder / "run")


def idle_step(*_: Any) -> Callable[..., Any]:
    """In the place of `make_train_step`: compiled in no time."""

    def step(state: Any, batch: Any) -> tuple[Any, StepMetrics]:
        one, zero = jnp.float32(1.0), jnp.int32(0)
        return state.replace(step=state.step + 1), StepMetrics(one, one, one, one, one, zero, zero)

    return step


def test_callbacks_and_metrics_of_ones_own_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of events; a metric stands with the evaluation's other values."""
    monkeypatch.setattr(program, "make_train_step", idle_step)
    calls: list[tuple] = []

    class Noting(Callback):
        def on_start(self, step: int) -> None:
            calls.append(("start", step))

        def on_step(self, step: int, metrics: StepMetrics) -> None:
            calls.append(("step", step))

        def on_evaluation(self, step: int, values: Any) -> None:
            calls.append(("evaluation", step, values["first_letters"]))

        def on_checkpoint(self, step: int) -> None:
            calls.append(("checkpoint", step))

        def on_end(self, step: int, *, done: bool) -> None:
            calls.append(("end", step, done))

    def first_letters(translations: Any, references: Any) -> float:
        assert len(translations) == len(references) == 11
        return 7.0

    made = experiment(tmp_path, 0.01, 2)
    training = dataclasses.replace(made.config.training, eval_every=2)
    scoring = dataclasses.replace(made.config.evaluation, metrics=("operator:ne",))
    config = dataclasses.replace(made.config, training=training, evaluation=scoring)
    options: Any = {
        "metrics": [first_letters],
        "callbacks": [Noting()],
        "optimizer": optax.sgd(0.1),
        "loss": lambda logits, labels: jnp.full(labels.shape, 3.0) + 0.0 * logits[..., 0],
    }
    assert train(config, tmp_path / "run", **options) == Exit.DONE
    ends = [("evaluation", 2, 7.0), ("checkpoint", 2), ("end", 2, True)]
    assert calls == [("start", 0), ("step", 1), ("step", 2), *ends]
    (line,) = (x for x in map(json.loads, lines(tmp_path)) if x["kind"] == "eval")
    assert line["first_letters"] == 7.0 and line["ne"] == 1.0
    assert line["loss"] == pytest.approx(3.0) and line["nll"] > 4.0
    for name in ("loss", "optimizer"):
        with pytest.raises(UserError, match=f"the {name} is not the one that the run in"):
            train(config, tmp_path / "run", **options | {name: None})


def lines(folder: Path) -> list[str]:
    return (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_run_that_is_prolonged_in_vain_and_lost_its_metrics_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(program, "make_train_step", idle_step)
    assert train(experiment(tmp_path, 0.01, 5)) == Exit.DONE
    before = capfd.readouterr().err
    assert "lacks" not in before and "learning rate is 0" not in before
    assert before.index("step 1: compiling for batches of 16x48+48") < before.index("step 1/5  lo")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train(experiment(tmp_path, 0.01, 10)) == Exit.DONE
    after = capfd.readouterr().err.splitlines()
    (idle,) = (line for line in after if "learning rate is 0 from step 6 to the last, 10" in line)
    (missing,) = (line for line in after if "metrics.jsonl lacks 1 of the 1 lines" in line)
    assert "training.steps=5" in idle and "at step 5" in missing
