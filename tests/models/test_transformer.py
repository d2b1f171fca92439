"""The Transformer's properties, by gradients and equalities rather than by pinned numbers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.model_options import compiled, drawn
from transformer import testing
from transformer.batch import Batch, Target
from transformer.models import build_model, parameters
from transformer.models.transformer.positions import sinusoidal
from transformer.testing import assert_equals_reference

B, S, T = 3, 7, 5
CONFIG = testing.model_config(dropout=0.0)


@pytest.fixture(scope="module", params=["post", pytest.param("pre", marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest):
    """A model, its variables with every parameter off its initial value, and a batch."""
    config = dataclasses.replace(CONFIG, norm=request.param)
    batch = testing.random_batch(vocab_size=config.vocab_size, rows=B)
    with jax.numpy_dtype_promotion("strict"), testing.layout():
        yield build_model(config), {"params": drawn(config, batch)}, batch


def test_sinusoids_are_the_papers() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i + 1) = cos of the same (§3.5)."""
    table = np.asarray(sinusoidal(jnp.arange(7)[None], 6))[0]
    for p in range(7):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(
                table[p, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6
            )


def test_causality_and_padding_by_input_gradients(trained) -> None:
    """d hidden[t] / d embedding[s] is zero for the future, for padding, and for nothing else."""
    model, variables, batch = trained

    V = CONFIG.vocab_size
    row = 2  # two padded positions on each side

    # One more row of the embedding table for each position of that sentence: its gradient tells
    # which positions an output depends on.
    def hidden(extra_table):
        table = jnp.concatenate([variables["params"]["embedding"]["table"], extra_table])
        params = {**variables["params"], "embedding": {"table": table}}
        config = dataclasses.replace(model.config, vocab_size=V + S + T)
        source = batch.source.replace(ids=batch.source.ids.at[row].set(V + jnp.arange(S)))
        target = batch.target.replace(ids=batch.target.ids.at[row].set(V + S + jnp.arange(T)))
        big: Any = build_model(config)
        memory = big.apply({"params": params}, source, method="encode")
        return big.apply({"params": params}, target, memory, method="decode")[row]

    table = variables["params"]["embedding"]["table"]
    extra = jnp.concatenate([table[batch.source.ids[row]], table[batch.target.ids[row]]])
    jacobian = jax.jit(jax.jacrev(hidden))(extra)  # [T, D, S + T, D]
    seen = np.asarray(jnp.any(jacobian != 0, axis=(1, 3)))
    source_used, target_used = (
        np.asarray(batch.source.segments[row] > 0),
        np.asarray(batch.target.segments[row] > 0),
    )
    for t in range(T):
        if target_used[t]:
            np.testing.assert_array_equal(seen[t, :S], source_used)
            np.testing.assert_array_equal(seen[t, S:], np.arange(T) <= t)


def test_packed_equals_unpacked(trained) -> None:
    """Two sentences in one row give the hidden states that each gives alone."""
    model, variables, _ = trained
    apply = compiled(model)
    packed = testing.random_batch(
        vocab_size=CONFIG.vocab_size, rows=1, source_length=12, target_length=8, packed=True
    )
    hidden = apply(variables, packed)[0]
    for segment in (1, 2):
        s, t = (
            jax.tree.map(lambda x, s=segment, side=side: x[side.segments == s][None], side)
            for side in (packed.source, packed.target)
        )
        alone = Batch(
            s.replace(segments=jnp.ones_like(s.segments)),
            t.replace(segments=jnp.ones_like(t.segments)),
        )
        expected = apply(variables, alone)[0]
        t = packed.target
        assert_equals_reference(hidden[t.segments[0] == segment], expected)


def test_cached_equals_full(trained) -> None:
    """Decoding token by token, for several hypotheses at once, equals teacher forcing."""
    model, variables, batch = trained
    W, apply = 2, compiled(model)
    memory = apply(variables, batch.source, method="encode")
    ids_BWT = jnp.stack([jnp.asarray(batch.target.ids), jnp.asarray(batch.target.ids)[:, ::-1]], 1)
    ones = jnp.ones((B, T), jnp.int32)

    def teacher(ids_BT):
        positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1))
        target = Target(ids_BT, positions, ones, ids_BT, ones.astype(jnp.float32))
        return apply(variables, target, memory, method="decode")

    expected = jnp.stack([teacher(ids_BWT[:, w]) for w in range(W)], 1)
    cache = model.apply(variables, memory, T + 2, W, method="init_cache")
    hidden = []
    for t in range(T):
        out, cache = apply(variables, ids_BWT[:, :, t], cache, method="step")
        hidden.append(out)
    assert_equals_reference(jnp.stack(hidden, 2), expected)
    assert int(cache.index) == T


def test_reorder_moves_hypotheses(trained) -> None:
    model, variables, batch = trained
    apply = compiled(model)
    memory = apply(variables, batch.source, method="encode")
    cache = model.apply(variables, memory, 3, 2, method="init_cache")
    tokens = jnp.array([[4, 5]] * B)
    _, cache = apply(variables, tokens, cache, method="step")
    crossed = cache.reorder(jnp.array([[1, 0]] * B))
    a, _ = apply(variables, tokens, cache, method="step")
    b, _ = apply(variables, tokens[:, ::-1], crossed, method="step")
    assert_equals_reference(b[:, ::-1], a)
    assert float(jnp.abs(a[:, 0] - a[:, 1]).max()) > 1e-3


def test_unrolled_and_rematerialised_equal_scanned(trained) -> None:
    """The same parameters, values and gradients, however the layers are run."""
    model, variables, batch = trained

    def loss(variables, config):
        logits: Any = build_model(config).apply(variables, batch)
        return jnp.sum(jnp.square(logits))

    run = lambda **changes: jax.jit(jax.grad(loss), static_argnums=1)(  # noqa: E731
        variables, dataclasses.replace(model.config, **changes)
    )
    expected = run()
    assert_equals_reference(run(unroll=True), expected)
    assert_equals_reference(run(remat="full"), expected)


def test_attention_weights_can_be_had(trained) -> None:
    model, variables, batch = trained
    apply = compiled(model)
    memory = apply(variables, batch.source, method="encode")
    _, state = apply(variables, batch.target, memory, method="decode", mutable=("attention",))
    weights_NBHTS = state["attention"]["decoder"]["cross_attention"]["weights"][0]
    assert weights_NBHTS.shape == (3, B, CONFIG.heads, T, S)
    sums = np.asarray(weights_NBHTS.sum(-1))[:, batch_rows(batch)]
    np.testing.assert_allclose(sums[..., 0], 1.0, atol=1e-5)


def batch_rows(batch) -> np.ndarray:
    return np.asarray(batch.target.segments[:, 0] > 0)


def test_dropout_needs_a_key_and_changes_with_it(trained) -> None:
    model, variables, batch = trained
    model = build_model(dataclasses.replace(model.config, dropout=0.5))
    apply = compiled(model)
    keys = map(jax.random.key, (1, 1, 2))
    first, again, other = (apply(variables, batch, rngs={"dropout": key}) for key in keys)
    assert bool(jnp.all(first == again))
    assert bool(jnp.any(first != other))
    assert bool(jnp.all(apply(variables, batch) == apply(variables, batch)))


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, 44_101_632),  # base, and big: AIAYN Table 3, without the embedding
        ({"d_model": 1024, "d_ff": 4096, "heads": 16}, 176_283_648),
    ],
)
def test_parameter_counts_are_the_papers(changes: dict, layers: int) -> None:
    base = {"encoder_layers": 6, "decoder_layers": 6, "d_model": 512, "d_ff": 2048, "heads": 8}
    config = testing.model_config(**{**base, **changes}, d_k=64, d_v=64, vocab_size=41_100)
    count = parameters.count(build_model(config), 32)
    assert count.layers == layers
    assert count.total == layers + 41_100 * config.d_model
    assert sum(count.groups.values()) == count.total
