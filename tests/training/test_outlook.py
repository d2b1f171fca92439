"""A run that will not do what was meant is told so before it trains."""

import dataclasses
from typing import Any

import optax
import pytest

from experiments import base
from transformer.config import Config, from_dict
from transformer.training import outlook
from transformer.training.optimizers import build_schedule

pytestmark = pytest.mark.optax
COSINE = {"init_value": 0.5, "decay_steps": 10}


def config(steps: int, schedule: str, options: dict[str, Any]) -> Config:
    tree = base.get_config("smoke").to_dict()
    tree["optimizer"] |= {"schedule": schedule, "schedule_options": options}
    resolved = from_dict(tree)
    return dataclasses.replace(
        resolved, training=dataclasses.replace(resolved.training, steps=steps)
    )


def warnings(
    step: int, steps: int, batches: int = 50, schedule: str = "cosine_decay", **options: Any
) -> list[str]:
    options = options or COSINE
    made = build_schedule(schedule, options)
    return outlook.warnings(config(steps, schedule, options), made, batches, step)


@pytest.mark.parametrize(
    ("step", "steps", "idle"),
    [(0, 10, None), (0, 11, None), (0, 12, 10), (10, 20, 10), (15, 20, 15), (19, 20, None)],
)
def test_a_rate_of_0_before_the_last_step_is_noticed(
    step: int, steps: int, idle: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for window in (outlook.WINDOW, 3):  # which may end within what is idle
        monkeypatch.setattr(outlook, "WINDOW", window)
        assert outlook.idle_from(optax.cosine_decay_schedule(**COSINE), step, steps) == idle


def test_a_rate_that_rises_again_is_no_end() -> None:
    restarts = optax.sgdr_schedule(
        [{"init_value": 0.0, "peak_value": 1.0, "decay_steps": 4, "warmup_steps": 1}] * 3
    )
    assert outlook.idle_from(restarts, 0, 12) is None
    assert outlook.idle_from(restarts, 0, 20) is not None
    assert outlook.idle_from(optax.constant_schedule(0.5), 0, 20) is None


def test_what_was_hardly_meant_is_told_with_its_keys() -> None:
    assert warnings(0, 10) == [] == warnings(0, 10**6, schedule="rsqrt", scale=1.0, warmup_steps=9)
    (line,) = warnings(10, 20)
    assert "learning rate is 0 from step 11 to the last, 20" in line
    assert "optimizer.schedule_options (decay_steps = 10)" in line and "training.steps=10" in line
    boundaries = {"init_value": 0.5, "boundaries_and_scales": {5: 0.0}}
    (line,) = warnings(0, 20, schedule="piecewise_constant", **boundaries)
    assert "from step 6 to the last, 20" in line and "optimizer.schedule_options end" in line
    (line,) = warnings(0, 10, batches=49)
    assert "an epoch has 49 batches" in line and "data.tokens_per_batch=512" in line
