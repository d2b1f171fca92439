"""The step as a function: what it learns, what accumulation and averaging change, and what not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer import testing
from transformer.models import build_model
from transformer.testing import assert_equals_reference
from transformer.training.step import StateFactory, gradients, make_train_step

pytestmark = pytest.mark.optax
TRAINING = dataclasses.replace(testing.TRAINING, ema_decay=0.75)
CONFIG = testing.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0)
BATCH = testing.random_batch(vocab_size=CONFIG.vocab_size, rows=4)


def test_a_batch_is_learned_and_the_average_follows() -> None:
    layout, model = testing.layout(), build_model(CONFIG)
    optimizer = optax.adam(0.01)
    state = StateFactory(model, optimizer, layout, TRAINING).create(0)
    first = jax.tree.map(np.asarray, state.params)
    schedule = optax.constant_schedule(0.01)
    step = layout.jit(make_train_step(model, optimizer, schedule, TRAINING, testing.DIVERGENCE))
    losses, average = [], first
    for _ in range(30):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics.nll))
        average = jax.tree.map(lambda e, p: 0.75 * e + 0.25 * np.asarray(p), average, state.params)
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 30
    assert_equals_reference(state.ema, average)
    assert float(metrics.learning_rate) == pytest.approx(0.01)


def test_accumulation_changes_nothing() -> None:
    """Parts hold different numbers of tokens: the mean is over all of them, not over the parts."""
    layout, model = testing.layout(), build_model(CONFIG)
    state = StateFactory(model, optax.sgd(1.0), layout, TRAINING).create(0)
    assert len(set(np.asarray(BATCH.target.weights.sum(1)))) > 1

    def run(parts: int):
        config = dataclasses.replace(TRAINING, accumulate=parts)
        return layout.jit(lambda state, batch: gradients(model, state, batch, config))(state, BATCH)

    whole, sums = run(1)
    accumulated, sums_k = run(4)
    assert_equals_reference(accumulated, whole)
    assert_equals_reference(sums_k, sums)


def test_the_z_loss_is_trained_on() -> None:
    layout, model = testing.layout(), build_model(CONFIG)
    state = StateFactory(model, optax.sgd(1.0), layout, TRAINING).create(0)

    def loss(z_loss: float) -> float:
        config = dataclasses.replace(TRAINING, z_loss=z_loss)
        run = layout.jit(lambda state: gradients(model, state, BATCH, config)[1].loss)
        return float(run(state))

    assert loss(0.1) > loss(0.0) + 1.0


def test_dropout_differs_by_step_and_part() -> None:
    layout, model = testing.layout(), build_model(dataclasses.replace(CONFIG, dropout=0.5))
    state = StateFactory(model, optax.sgd(1.0), layout, TRAINING).create(0)
    run = layout.jit(lambda state: gradients(model, state, BATCH, TRAINING)[1].loss)
    at = lambda step, seed=0: float(  # noqa: E731
        run(state.replace(step=jnp.asarray(step, jnp.int32), seed=jnp.asarray(seed, jnp.int32)))
    )
    assert at(0) == at(0)
    assert len({at(0), at(1), at(0, seed=1)}) == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_mixed_precision_keeps_parameters_and_loss_in_float32(dtype: str) -> None:
    config = dataclasses.replace(CONFIG, dtype=dtype)
    layout, model = testing.layout(), build_model(config)
    state = StateFactory(model, optax.sgd(1.0), layout, TRAINING).create(0)
    run = layout.jit(lambda state, batch: gradients(model, state, batch, TRAINING))
    program = str(jax.make_jaxpr(run)(state, BATCH)).splitlines()
    products = [line for line in program if " = dot_general" in line]
    low = [line for line in products if ":bf16[" in line]
    assert len(products) > 20
    assert (len(low) > len(products) // 2) == (dtype == "bfloat16")
    grads, sums = run(state, BATCH)
    for leaf in jax.tree.leaves((grads, sums, state.params)):
        assert leaf.dtype == jnp.float32
    exact = build_model(CONFIG)
    expected = layout.jit(lambda s, b: gradients(exact, s, b, TRAINING))(state, BATCH)
    assert_equals_reference(sums.loss, expected[1].loss, 2e-2)
