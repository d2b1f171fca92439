"""The loss against its definition, and what it holds in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import UserError
from transformer.losses import (
    chunked_loss,
    cross_entropy,
    loss_of_positions,
    smoothed_cross_entropy,
)
from transformer.testing import assert_equals_reference

B, T, D, V = 2, 6, 5, 11


def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (B, T, D))
    table = jax.random.normal(keys[1], (V, D))
    labels = jax.random.randint(keys[2], (B, T), 0, V)
    weights = jnp.ones((B, T)).at[1, 4:].set(0.0)
    return hidden, table, labels, weights


def test_equals_the_cross_entropy_with_smoothed_targets() -> None:
    """-Σ q log p with q = 1 - ε on the label and ε spread over all V entries (§5.4)."""
    hidden, table, labels, weights = inputs()
    logits = np.asarray(hidden @ table.T, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    q = np.full((B, T, V), 0.3 / V)
    np.put_along_axis(q, np.asarray(labels)[..., None], 0.7 + 0.3 / V, -1)
    sums = smoothed_cross_entropy(jnp.asarray(logits, jnp.float32), labels, weights, 0.3)
    np.testing.assert_allclose(
        sums.loss, -(q * log_p).sum(-1)[np.asarray(weights) > 0].sum(), rtol=1e-5
    )
    nll = -np.take_along_axis(log_p, np.asarray(labels)[..., None], -1)[..., 0]
    np.testing.assert_allclose(sums.nll, (nll * weights).sum(), rtol=1e-5)
    correct = (logits.argmax(-1) == np.asarray(labels)) * np.asarray(weights)
    assert float(sums.correct) == correct.sum()
    assert float(sums.weight) == 10.0


def test_z_loss_is_the_square_of_the_log_normaliser() -> None:
    """Added to the loss of each position that counts, and to nothing else (PaLM §5)."""
    hidden, table, labels, weights = inputs()
    logits = hidden @ table.T
    plain, with_z = (smoothed_cross_entropy(logits, labels, weights, 0.1, z) for z in (0.0, 0.5))
    squares = np.log(np.exp(np.asarray(logits, np.float64)).sum(-1)) ** 2
    added = 0.5 * (squares * np.asarray(weights)).sum()
    np.testing.assert_allclose(with_z.loss - plain.loss, added, rtol=1e-5)
    assert (with_z.nll, with_z.correct) == (plain.nll, plain.correct)
    project = lambda hidden: jnp.einsum("BTD,VD->BTV", hidden, table)  # noqa: E731
    chunked = chunked_loss(project, hidden, labels, weights, cross_entropy(0.1, 0.5), chunks=3)
    np.testing.assert_allclose(chunked.loss, with_z.loss, rtol=1e-6)


def test_a_loss_of_ones_own_is_that_of_the_chunks() -> None:
    """Likelihood, accuracy and weight stand beside it; its gradient is its own."""
    hidden, table, labels, weights = inputs()

    def focal(logits, labels):
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
        return (1 - jnp.exp(-nll)) ** 2 * nll

    def sums(hidden, chunks):
        project = lambda hidden: jnp.einsum("BTD,VD->BTV", hidden, table)  # noqa: E731
        loss = loss_of_positions(focal)
        return chunked_loss(project, hidden, labels, weights, loss, chunks=chunks)

    logits = hidden @ table.T
    plain = smoothed_cross_entropy(logits, labels, weights, 0.0)
    ours = sums(hidden, 3)
    np.testing.assert_allclose(ours.loss, (focal(logits, labels) * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose([ours.nll, ours.weight], [plain.nll, plain.weight], rtol=1e-5)
    grad = lambda chunks: jax.grad(lambda h: sums(h, chunks).loss)(hidden)  # noqa: E731
    direct = jax.grad(lambda h: (focal(h @ table.T, labels) * weights).sum())(hidden)
    np.testing.assert_allclose(grad(3), direct, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [lambda x, y: 3.0, lambda x, y: y, lambda x, y: x, lambda x, y: x[:1, :, 0]]
)
def test_a_loss_of_another_shape_or_type_is_refused(loss) -> None:
    hidden, table, labels, weights = inputs()
    with pytest.raises(UserError, match="give a floating-point number for each label"):
        loss_of_positions(loss)(hidden @ table.T, labels, weights)


def total(hidden, table, labels, weights, chunks):
    project = lambda hidden: jnp.einsum("BTD,VD->BTV", hidden, table)  # noqa: E731
    sums = chunked_loss(project, hidden, labels, weights, cross_entropy(0.1), chunks=chunks)
    return sums.loss, sums


def test_chunks_change_nothing() -> None:
    """Values and gradients, also for a number of chunks that does not divide the length."""
    run = lambda chunks: jax.value_and_grad(total, (0, 1), has_aux=True)(*inputs(), chunks)  # noqa: E731
    for chunks in (2, 3, 4, 6, 8):
        assert_equals_reference(run(chunks), run(1))


def test_the_gradient_never_holds_all_logits() -> None:
    """Its temporaries stay under half of B·T·V floats; in one piece they do not."""
    B, T, D, V = 16, 32, 8, 4_000
    shapes = [
        ((B, T, D), jnp.float32),
        ((V, D), jnp.float32),
        ((B, T), jnp.int32),
        ((B, T), jnp.float32),
    ]
    abstract = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]

    def temporaries(chunks: int) -> float:
        loss = functools.partial(total, chunks=chunks)
        compiled = jax.jit(jax.grad(loss, (0, 1), has_aux=True)).lower(*abstract).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * B * T * V)

    assert temporaries(8) <= 0.5
    assert temporaries(1) > 1.0


def test_every_device_works_on_every_chunk() -> None:
    """Of a length split over 3 devices, each chunk is an equal part of each device's positions."""
    chunks = []

    def project(hidden_BCD):
        jax.debug.callback(lambda h: chunks.append(np.array(h[0, :, 0])), hidden_BCD)
        return hidden_BCD

    hidden = jnp.arange(12, dtype=jnp.float32)[None, :, None]
    zeros, ones = jnp.zeros((1, 12), jnp.int32), jnp.ones((1, 12))
    chunked_loss(project, hidden, zeros, ones, cross_entropy(), chunks=2, shards=3)
    jax.effects_barrier()
    assert [chunk.tolist() for chunk in chunks] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
