"""Checkpoints of a small state: what is kept, what is averaged, what comes back."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer import testing
from transformer.checkpoints.checkpoints import Checkpoints
from transformer.checkpoints.state import TrainState
from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.models import build_model
from transformer.testing import TRAINING
from transformer.training.early_stopping import EarlyStopping
from transformer.training.step import StateFactory
from transformer.upstream.compilation_cache import programs

pytestmark = pytest.mark.optax
CONFIG = CheckpointsConfig(every=10, keep_last=2, keep_best=1, average=2)
MODEL = testing.model_config(
    encoder_layers=1, decoder_layers=1, d_model=16, d_ff=8, heads=2, vocab_size=38
)


def factory(*, ema: float = 0.0, **axes: int) -> StateFactory:
    training = dataclasses.replace(TRAINING, ema_decay=ema)
    return StateFactory(build_model(MODEL), optax.adam(0.1), testing.layout(**axes), training)


@pytest.fixture
def opened(tmp_path: Path):
    """Opens the same directory of checkpoints again and again."""
    with contextlib.ExitStack() as stack:

        def call(*, lower_is_better: bool = True, read_only: bool = False) -> Checkpoints:
            kept = Checkpoints(
                tmp_path / "checkpoints",
                CONFIG,
                lower_is_better=lower_is_better,
                read_only=read_only,
            )
            stack.callback(kept.close)
            return kept

        yield call


def save(checkpoints: Checkpoints, state: TrainState, scores: dict[int, float | None]) -> None:
    """Saves these steps; each adds its number to every parameter."""
    for step, score in scores.items():
        moved = state.replace(
            step=jnp.asarray(step, jnp.int32),
            params=jax.tree.map(lambda x, n=float(step): x + n, state.params),
        )
        checkpoints.save(moved, {"step": step, "stopped": False}, score)
        checkpoints.wait()


@pytest.mark.parametrize(("lower", "best"), [(True, 20), (False, 25)])
def test_the_last_ones_and_the_best_are_kept(opened: Callable, lower: bool, best: int) -> None:
    """A stop's irregular checkpoint displaces none; of two equally good ones the first stays."""
    state = factory().create(0)
    save(
        opened(lower_is_better=lower),
        state,
        {10: 3.0, 20: 1.0, 25: 4.0, 30: None, 40: 1.0, 43: None},
    )
    again = opened(lower_is_better=lower, read_only=True)
    assert again.steps == [best, 30, 40, 43]
    assert again.best_step == best
    assert again.recent(2) == [40, 43] and again.recent(9) == [20, 30, 40, 43][best != 20 :]


def test_the_average_is_the_mean(opened: Callable) -> None:
    made = factory()
    state = made.create(0)
    save(opened(), state, {10: None, 20: None})
    counted = programs()
    before = counted.compiled + counted.cached
    mean = opened(read_only=True).params(made.abstract.params, [10, 20])
    assert counted.compiled + counted.cached - before <= 3, "digests, sum and quotient"
    expected = jax.tree.map(lambda x: x + 15.0, state.params)
    testing.assert_equals_reference(mean, expected, 1e-6)


@pytest.mark.parametrize("axes", [{"data": 1}, {"fsdp": 4, "tensor": 2}])
def test_a_state_comes_back_on_any_mesh(opened: Callable, axes: dict) -> None:
    """Bit for bit, averages and optimizer included, placed as the new mesh wants it."""
    state = factory(ema=0.5, fsdp=2).create(3)
    save(opened(), state, {1: None})
    wanted = factory(ema=0.5, **axes).abstract
    got, meta = opened(read_only=True).restore(wanted, 1)
    assert meta["step"] == 1
    saved = state.replace(
        step=jnp.asarray(1, jnp.int32), params=jax.tree.map(lambda x: x + 1.0, state.params)
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, got, saved))
    same = jax.tree.map(lambda x, w: x.sharding.is_equivalent_to(w.sharding, x.ndim), got, wanted)
    assert jax.tree.all(same)
    average = opened(read_only=True).params(wanted.params, [1], "ema")
    assert jax.tree.all(jax.tree.map(np.array_equal, average, state.ema))


def test_another_models_checkpoint_is_refused(opened: Callable) -> None:
    save(opened(), factory().create(0), {1: None})
    other = StateFactory(
        build_model(dataclasses.replace(MODEL, d_ff=9)), optax.adam(0.1), testing.layout(), TRAINING
    )
    with pytest.raises(UserError, match=r"checkpoint .*1 cannot be used"):
        opened(read_only=True).restore(other.abstract, 1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "no space left on the disk): make room there"),
        (OSError(122, "Disk quota exceeded"), "no space left on the disk): make room there"),
        (OSError(13, "Permission denied"), "Permission denied): mend that"),
        (ValueError("tensorstore: broken pipe"), "tensorstore: broken pipe): mend that"),
    ],
)
def test_only_a_full_disk_wants_room(opened: Callable, error: Exception, told: str) -> None:
    kept = opened()
    with pytest.raises(UserError) as caught, kept._writing(7):
        raise error
    assert told in str(caught.value) and "older ones are whole" in str(caught.value)


def test_patience_counts_evaluations_without_a_better_one() -> None:
    stopping = EarlyStopping()
    for step, value in enumerate([3.0, 2.0, 2.5, 2.0, 2.1], start=1):
        stopping = stopping.after(value, step, lower_is_better=True)
    assert (stopping.best, stopping.best_step, stopping.since_best) == (2.0, 2, 3)
    assert EarlyStopping(**json.loads(json.dumps(dataclasses.asdict(stopping)))) == stopping
    assert not stopping.exhausted(patience=0) and not stopping.exhausted(patience=4)
    assert stopping.exhausted(patience=3)
    higher = (
        EarlyStopping().after(1.0, 1, lower_is_better=False).after(2.0, 2, lower_is_better=False)
    )
    assert higher.best_step == 2
