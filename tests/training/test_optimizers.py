"""Schedules and optimizers by name."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer.errors import UserError
from transformer.training.optimizers import build_optimizer, build_schedule


def test_the_papers_schedule() -> None:
    """d_model^-0.5 · min(n^-0.5, n · warmup^-1.5) (§5.3, Eq. 3) for update n = count + 1."""
    schedule = build_schedule("rsqrt", {"scale": 512**-0.5, "warmup_steps": 4_000})
    for n in (1, 100, 4_000, 100_000):
        expected = 512**-0.5 * min(n**-0.5, n * 4_000**-1.5)
        assert np.asarray(schedule(n - 1)) == pytest.approx(expected, rel=1e-5)
    peak = max(np.asarray(schedule(n)) for n in range(0, 8_000, 37))
    assert peak <= np.asarray(schedule(3_999)) == pytest.approx((512 * 4_000) ** -0.5, rel=1e-5)


def test_optax_by_name() -> None:
    schedule = build_schedule("cosine_decay", {"init_value": 0.5, "decay_steps": 10})
    assert np.asarray(schedule(0)) == 0.5
    for name, options in [("adam", {"b2": 0.98}), ("adamw", {"weight_decay": 0.1}), ("lion", {})]:
        optimizer = build_optimizer(name, options, schedule, clip_norm=1.0)
        optimizer.init({"w": jnp.ones(3)})


@pytest.mark.optax
def test_clipping_bounds_the_global_norm() -> None:
    optimizer = build_optimizer("sgd", {}, optax.constant_schedule(1.0), clip_norm=2.0)
    grads = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    assert float(optax.tree.norm(updates)) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: build_schedule("rsqr", {}), "optimizer.schedule is 'rsqr', .* did you mean rsqrt"),
        (lambda: build_schedule("rsqrt", {"scale": 1.0}), "lacks warmup_steps, which rsqrt needs"),
        (lambda: build_schedule("rsqrt", {"scale": 1.0, "warmup_steps": 0}), "must be above 0"),
        (
            lambda: build_schedule("rsqrt", {"warmup": 1}),
            "schedule_options has warmup, which rsqrt does not take and lacks",
        ),
        (
            lambda: build_optimizer("adamm", {}, optax.constant_schedule(1.0), 0.0),
            "did you mean adam",
        ),
        (
            lambda: build_optimizer("adam", {"beta": 1}, optax.constant_schedule(1.0), 0.0),
            "options has beta, which adam does not take: adam takes b1, b2",
        ),
        (
            lambda: build_optimizer(
                "adam", {"learning_rate": 1}, optax.constant_schedule(1.0), 0.0
            ),
            "the schedule gives it",
        ),
    ],
)
def test_what_does_not_exist_is_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_another_optimizer_or_schedule_says_that_the_section_is_replaced_as_a_whole() -> None:
    """Nobody typed eps: it is base.py's, for Adam."""
    base_options = {"b1": 0.9, "b2": 0.98, "eps": 1e-9}
    with pytest.raises(UserError) as caught:
        build_optimizer("lion", base_options, optax.constant_schedule(1.0), 0.0)
    line = str(caught.value)
    assert "optimizer.options has eps, which lion does not take" in line
    assert "are the experiment file's" in line and "learning_rate" not in line
    assert line.endswith("by --config.optimizer.options=\"{'b1': 0.9, 'b2': 0.98}\"")
    with pytest.raises(UserError) as caught:
        build_schedule("cosine_decay", {"scale": 1.0, "warmup_steps": 9})
    line = str(caught.value)
    assert "has scale, warmup_steps, which cosine_decay does not take and lacks init_value" in line
    assert "{'init_value': ..., 'decay_steps': ...}" in line
