"""Schemes of positions: several sentences a row, shifts, numbers of the papers, meshes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.equations import Sentence
from tests.support.model_options import SIZES, config, drawn
from transformer import testing
from transformer.batch import Batch
from transformer.config import ShardingConfig
from transformer.config.model import SCHEMES
from transformer.errors import UserError
from transformer.models import build_model
from transformer.models.transformer.position_bias import alibi_slopes, t5_bucket
from transformer.models.transformer.positions import Rotation, angles, sinusoidal, sinusoidal_halves
from transformer.sharding import Layout
from transformer.testing import assert_equals_reference

RELATIVE = ("rotary", "t5", "shaw", "alibi", "none")  # than absolute


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "sinusoidal_halves"])
def test_packed_rows_and_shifts(scheme: str) -> None:
    """Two sentences in a row are each what NumPy says of it alone, weights too.

    And if all positions rise by 5, nothing changes where the scheme knows distances alone.
    """
    c = config(scheme=scheme)
    batch = testing.random_batch(**SIZES, packed=True)
    model, params = build_model(c), drawn(c, batch)

    @testing.layout().jit
    def run(batch: Batch) -> Any:
        apply: Any = lambda *args, method: model.apply(  # noqa: E731
            {"params": params}, *args, method=method, mutable=["attention"]
        )
        memory, encoder = apply(batch.source, method="encode")
        hidden, decoder = apply(batch.target, memory, method="decode")
        sown = [tree["attention"] for tree in (encoder, decoder)]
        weights = [w for tree in sown for w in jax.tree.leaves(tree)]
        return memory.hidden, hidden, weights

    memory, hidden, weights = jax.tree.map(np.asarray, run(batch))
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for b in range(2):
        for segment in (1, 2):
            s, t = (np.asarray(x.segments[b]) == segment for x in (batch.source, batch.target))
            sentence = Sentence(c, double)
            m = sentence.encode(np.asarray(batch.source.ids[b])[s])
            h = sentence.decode(np.asarray(batch.target.ids[b])[t], m)
            assert_equals_reference((memory[b][s], hidden[b][t]), (m, h), 2e-5)
            within = weights[0][0, b, :, s][:, :, s]  # encoder, layer 0; queries come first
            assert_equals_reference(np.moveaxis(within, 1, 0), np.stack(sentence.weights[:4]), 2e-5)
    shift = lambda side: side.replace(positions=side.positions + 5)  # noqa: E731
    shifted = run(Batch(shift(batch.source), shift(batch.target)))
    used = [np.asarray(x.segments) > 0 for x in (batch.source, batch.target)]
    apart = max(
        float(np.abs(np.asarray(new)[u] - old[u]).max())
        for new, old, u in zip(shifted, (memory, hidden), used, strict=False)
    )
    assert (apart < 2e-5) == (scheme in RELATIVE), apart


def test_a_learned_table_ends_with_its_last_position() -> None:
    c = config(scheme="learned")
    batch = testing.random_batch(**SIZES)
    model, params = build_model(c), drawn(c, batch)

    def encode(by: int) -> Any:
        moved = batch.source.replace(positions=batch.source.positions + by)
        return model.apply({"params": params}, moved, method="encode").hidden

    with testing.layout():
        last, beyond, before = encode(15), encode(40), encode(14)
    assert bool(jnp.all(last == beyond)) and not bool(jnp.all(last == before))


def test_the_numbers_of_the_papers() -> None:
    """Sinusoids in both orders; slopes; T5's buckets as its §2.1 describes them."""
    table, halves = (f(jnp.arange(7)[None], 6)[0] for f in (sinusoidal, sinusoidal_halves))
    np.testing.assert_array_equal(halves[:, :3], table[:, 0::2])
    np.testing.assert_array_equal(halves[:, 3:], table[:, 1::2])
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]  # printed in their §3
    assert alibi_slopes(12)[:8] == alibi_slopes(8)
    assert alibi_slopes(12)[8:] == alibi_slopes(16)[0:8:2]
    ahead = t5_bucket(jnp.arange(-200, 200), buckets=32, max_distance=128, both_ways=True)
    back = t5_bucket(jnp.arange(-200, 1), buckets=32, max_distance=128, both_ways=False)
    # "Ahead by 0" has a bucket that nothing falls into, in their code too.
    assert set(np.asarray(ahead).tolist()) == {*range(32)} - {16}
    assert set(np.asarray(back).tolist()) == set(range(32))
    assert back[200 - 15 : 201].tolist() == list(range(15, -1, -1))  # exact up to 16
    assert int(back[200 - 127]) == int(back[0]) == 31 and int(back[200 - 16]) == 16
    assert ahead[200 - 7 : 200 + 8].tolist() == [*range(7, 0, -1), 0, *range(17, 24)]


def test_rotations_keep_lengths_and_know_distances_alone() -> None:
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 6))

    def score(t: int, s: int) -> float:
        turn = lambda p, x: Rotation(angles(jnp.array([[p]]), 6, 100.0))(x)  # noqa: E731
        return float(jnp.vdot(turn(t, q), turn(s, k)))

    assert score(3, 1) == pytest.approx(score(203, 201), rel=1e-4)
    assert score(3, 3) == pytest.approx(float(jnp.vdot(q, k)), rel=1e-5)
    assert abs(score(3, 1) - score(1, 3)) > 1e-2


MESHES = [
    # Shaw's queries are told apart by number wherever they lie; a ring passes keys round.
    ("shaw", "ring:chunked", {"data": 2, "tensor": 2, "sequence": 2}, 2),
    ("shaw", "xla", {"fsdp": 2, "tensor": 4}, 0),
    ("t5", "ring:chunked", {"tensor": 4, "sequence": 2}, 0),
    ("t5", "ulysses", {"data": 2, "sequence": 2, "tensor": 2}, 2),
    ("alibi", "ring:chunked", {"data": 4, "sequence": 2}, 1),
    ("alibi", "chunked", {"data": 2, "tensor": 4}, 0),
    ("rotary", "ring:splash", {"data": 2, "sequence": 4}, 2),
    ("learned", "auto", {"fsdp": 2, "tensor": 2, "sequence": 2}, 2),
]
QUICK, BY_HAND = MESHES[5], {1, 2, 4, 7}  # each scheme, and each backend, is in another row


def each_mesh() -> Iterator:
    for number, row in enumerate(MESHES):
        mark = pytest.mark.long if number in BY_HAND else pytest.mark.slow
        yield pytest.param(*row, marks=() if row == QUICK else mark)


@pytest.mark.parametrize(("scheme", "backend", "axes", "kv_heads"), list(each_mesh()))
def test_schemes_do_not_depend_on_the_mesh(
    scheme: str, backend: str, axes: dict, kv_heads: int
) -> None:
    """Values and gradients of packed rows, on eight devices and on one."""
    c = config(scheme=scheme, backend=backend, kv_heads=kv_heads, d_ff=16, vocab_size=32)
    sizes = {"vocab_size": 31, "rows": 8, "source_length": 16, "target_length": 12}
    batch = testing.random_batch(**sizes, packed=True)
    params = drawn(c, batch)
    cotangent = jax.random.normal(jax.random.key(1), (8, 12, 32))

    def run(layout: Any, c: Any) -> Any:
        def loss(params: Any, batch: Batch) -> Any:
            logits: Any = build_model(c).apply({"params": params}, batch)
            return jnp.vdot(logits * batch.target.weights[..., None], cotangent)

        placed = layout.place(jax.tree.map(np.asarray, batch))
        return layout.jit(jax.value_and_grad(loss))(params, placed)

    alone = dataclasses.replace(c.attention, backend="reference")
    expected = run(testing.layout(), dataclasses.replace(c, attention=alone))
    assert_equals_reference(run(testing.layout(**axes), c), expected, 2e-5)


def test_one_key_value_head_where_heads_are_split() -> None:
    """Each device holds it whole, if the rules say so; else its size is refused."""
    c = config(scheme="shaw", kv_heads=1, vocab_size=32, d_ff=16)
    batch = testing.random_batch(vocab_size=31, rows=4)
    params, axes = drawn(c, batch), {"data": 2, "fsdp": 1, "tensor": 4, "sequence": 1}

    def decoded(layout: Any) -> Any:
        def run(params: Any, batch: Batch) -> Any:
            apply: Any = lambda *args, method: build_model(c).apply(  # noqa: E731
                {"params": params}, *args, method=method
            )
            memory = apply(batch.source, method="encode")
            cache = apply(memory, 3, 2, method="init_cache")
            _, cache = apply(batch.target.ids[:, :2], cache, method="step")
            out, _ = apply(batch.target.ids[:, 2:4], cache, method="step")
            return apply(batch.target, memory, method="decode"), out

        return layout.jit(run)(params, layout.place(jax.tree.map(np.asarray, batch)))

    whole = [(name, () if name == "kv_heads" else to) for name, to in ShardingConfig().rules]
    assert_equals_reference(decoded(Layout(axes, whole)), decoded(testing.layout()), 2e-5)
    with pytest.raises(UserError, match="axis 'kv_heads' has size 1, which the mesh axes tensor"):
        decoded(Layout(axes, ShardingConfig().rules))
