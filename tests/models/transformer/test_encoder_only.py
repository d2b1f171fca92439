"""An encoder alone: its readouts and patches beside NumPy, and what they may see."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_options import ROWS
from tests.support.equations import Reading
from tests.support.model_options import LENGTHS, SIZES, B, T, config, drawn
from transformer import testing
from transformer.batch import Batch, Source
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models import build_model
from transformer.testing import assert_equals_reference

READOUTS = [("position", 1), ("class", 1), ("mean", 1), ("class", 4), ("mean", 3)]
QUICK = 5  # rows of the default lane: each of these once


def alone(row: dict, **changes: Any) -> ModelConfig:
    """A row of options for this family, which has no target table."""
    tied = row.get("tied", "three_way").replace("two_way", "none")
    return config(**{**row, "tied": tied, "family": "encoder", **changes})


def each_row() -> Iterator:
    for number, row in enumerate(ROWS):
        readout, patch = READOUTS[number % len(READOUTS)]
        marks = () if number < QUICK else pytest.mark.slow
        name = "-".join(map(str, (readout, patch, *row.values())))
        yield pytest.param({**row, "readout": readout, "patch": patch}, id=name, marks=marks)


def hidden(c: ModelConfig, params: Any, batch: Batch) -> Any:
    """Of every target position, by `decode`."""
    model: Any = build_model(c)
    memory = model.apply({"params": params}, batch.source, method="encode")
    return model.apply({"params": params}, batch.target, memory, method="decode")


on_one_device = testing.layout().jit(hidden, static_argnums=0)


@pytest.mark.parametrize("row", list(each_row()))
def test_a_model_is_its_equations(row: dict) -> None:
    """At once as in NumPy; and position by position, whatever tokens are fed."""
    c, batch = alone(row), testing.random_batch(**SIZES)
    model, params = build_model(c), drawn(c, batch)

    @testing.layout().jit
    def run(params: Any, batch: Batch) -> Any:
        apply: Any = lambda *args, method: model.apply({"params": params}, *args, method=method)  # noqa: E731
        cache = apply(apply(batch.source, method="encode"), T + 2, 3, method="init_cache")

        def step(cache: Any, _: None) -> Any:
            out, cache = apply(jnp.full((B, 3), 5), cache, method="step")
            return cache.reorder(jnp.zeros((B, 3), jnp.int32)), out[:, 1]

        _, stepped_TBD = jax.lax.scan(step, cache, length=T)
        x = hidden(c, params, batch)
        return x, model.apply({"params": params}, x, method="logits"), stepped_TBD

    found = jax.tree.map(np.asarray, run(params, batch))
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for b in range(B):
        s, t = LENGTHS["source"][b], LENGTHS["target"][b]
        text = Reading(c, double)
        expected = text.read_out(np.asarray(batch.source.ids[b, :s]), t)
        of_row = (found[0][b, :t], found[1][b, :t], found[2][:t, b])
        assert_equals_reference(of_row, (expected, text.logits(expected), expected), 2e-5)


@pytest.mark.parametrize("readout", ["position", "mean"])
def test_packed_equals_unpacked(readout: str) -> None:
    c = alone({"scheme": "learned"}, readout=readout)
    packed = testing.random_batch(**{**SIZES, "source_length": 12, "target_length": 8}, packed=True)
    params = drawn(c, packed)
    assert build_model(c).takes_packed_rows
    with testing.layout():
        whole = np.asarray(on_one_device(c, params, packed))
        for segment in (1, 2):
            one = jax.tree.map(lambda x: x[:1], packed)
            s, t = (np.asarray(x.segments[0]) == segment for x in (one.source, one.target))
            source = jax.tree.map(lambda x, s=s: x[:, s], one.source)
            target = jax.tree.map(lambda x, t=t: x[:, t], one.target)
            found = np.asarray(on_one_device(c, params, Batch(source, target)))
            assert_equals_reference(whole[0][t], found[0])


@pytest.mark.parametrize(("readout", "patch"), READOUTS)
def test_what_an_output_depends_on(readout: str, patch: int) -> None:
    """All of its own source and nothing else: no padding, no other row, none of the target."""
    c = alone({}, readout=readout, patch=patch, vocab_size=2 * 9 + 1)
    batch = testing.random_batch(**{**SIZES, "vocab_size": 9})
    ids = 1 + jnp.arange(2 * 9, dtype=jnp.int32).reshape(2, 9)  # a row of the table each
    batch = batch.replace(source=batch.source.replace(ids=ids))
    params = drawn(c, batch)

    def second_row(table: Any) -> Any:
        given = {**params, "embedding": {**params["embedding"], "table": table}}
        return jnp.sum(jnp.sin(hidden(c, given, batch)[1, :6]))

    with testing.layout():
        gradient = np.asarray(jax.jit(jax.grad(second_row))(params["embedding"]["table"]))
        other = dataclasses.replace(batch.target, ids=batch.target.ids * 0 + 7)
        same = (
            on_one_device(c, params, batch),
            on_one_device(c, params, batch.replace(target=other)),
        )
    used = np.zeros((2, 9), bool)
    used[1, :8] = True
    moved = np.any(gradient[1:] != 0, axis=1).reshape(2, 9)
    np.testing.assert_array_equal(moved, used)
    np.testing.assert_array_equal(same[0], same[1])


def test_a_class_token_does_not_depend_on_padding() -> None:
    """Nor does a last patch: the same source with more padding behind it says the same."""
    c = alone({"scheme": "learned"}, readout="class", patch=4)
    batch = testing.random_batch(**SIZES)
    params = drawn(c, batch)
    widened = Source(*(jnp.pad(x, [(0, 0), (0, 6)]) for x in jax.tree.leaves(batch.source)))
    with testing.layout():
        one, other = (
            on_one_device(c, params, batch.replace(source=s)) for s in (batch.source, widened)
        )
    assert_equals_reference(other, one)


@pytest.mark.parametrize(("readout", "patch"), READOUTS)
def test_flops_are_two_for_each_weight_and_use(readout: str, patch: int) -> None:
    c, length = alone({"feed_forward": "swiglu"}, readout=readout, patch=patch), 12
    tree = jax.tree_util.tree_leaves_with_path(drawn(c, testing.random_batch(**SIZES)))
    matrices = ("query", "key", "value", "output", "up", "gate", "down", "kernel")
    weights = {"encoder": 0, "readout": 0, "patches": 0}
    for path, leaf in tree:
        if path[-1].key in matrices:
            weights[path[0].key] += leaf.size
    places = length // patch + (readout == "class")
    products = c.encoder_layers * places * c.heads * (c.d_k + c.d_v)
    source = places * (weights["encoder"] + products) + length // patch * weights["patches"]
    target = weights["readout"] + c.d_model * c.vocab_size
    target += places * c.d_model * (readout == "mean")
    found = type(build_model(c)).flops_per_token(c, length)
    np.testing.assert_allclose(found, 2 * (source / length + target))


def test_it_has_what_it_uses() -> None:
    batch = testing.random_batch(**SIZES)
    c = alone({"scheme": "learned", "norm": "pre"}, readout="class", patch=4)
    params = drawn(c, batch)
    assert set(params) == {
        *("embedding", "positions", "encoder", "encoder_norm"),
        *("class_token", "patches", "readout"),
    }
    assert set(params["embedding"]) == {"table"} and set(params["positions"]) == {"source"}
    plain = drawn(alone({}), batch)
    assert set(plain) == {"embedding", "encoder"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "encoder", "tied": "two_way"}, r"model.tied is three_way .* or none"),
        ({"family": "encoder", "patch": 4}, r"model.patch=4 .* set model.readout to class or mean"),
        ({"family": "encoder", "readout": "mean", "d_model": 13}, r"take 14"),
        ({"family": "transformer", "readout": "class"}, r"are for model.family=encoder"),
        ({"family": "decoder", "patch": 2}, r"are for model.family=encoder"),
        ({"family": "encoder", "readout": "first"}, r"model.readout is 'first'; choose one of"),
        ({"family": "encoder", "patch": 0}, r"model.patch is 0; it must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(config(scheme="none", **changes))
    assert "\n" not in str(caught.value)


def test_a_class_token_wants_whole_lengths() -> None:
    c = alone({}, readout="class")
    assert not build_model(c).takes_packed_rows
    batch = testing.random_batch(**{**SIZES, "source_length": 8, "target_length": 8})
    params = drawn(c, batch)
    with pytest.raises(UserError, match=r"set mesh.sequence=1, or model.readout=mean"):
        testing.layout(sequence=2).jit(lambda: hidden(c, params, batch))()
    halved = alone({}, readout="mean", vocab_size=32)
    params = drawn(halved, batch)
    run = lambda layout: layout.jit(lambda: hidden(halved, params, batch))()  # noqa: E731
    assert_equals_reference(run(testing.layout(sequence=2, tensor=2)), run(testing.layout()))
