"""Meshes: what is refused, who holds what, and that a step does not depend on the split."""

import contextlib
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer import testing
from transformer.config import ShardingConfig
from transformer.errors import UserError
from transformer.models import build_model, parameters
from transformer.sharding import Layout, constrain, current
from transformer.testing import TRAINING, assert_equals_reference
from transformer.training.step import StateFactory, gradients

CONFIG = testing.model_config(
    encoder_layers=1, decoder_layers=2, d_model=32, d_ff=40, heads=8, vocab_size=48
)
SPLITS = [
    dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    for sizes in itertools.product((1, 2, 4, 8), repeat=3)
    if math.prod(sizes) == 8
]


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """A program from the cache would not repeat the compiler's warnings."""
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


@functools.cache
def one_step(backend: str = "auto", lengths: tuple[int, int] = (7, 6), packed=False, **axes: int):
    """Initial parameters, loss, gradients and parameters after one SGD step, on a mesh."""
    layout = testing.layout(**axes)
    attention = dataclasses.replace(CONFIG.attention, backend=backend)
    model = build_model(dataclasses.replace(CONFIG, attention=attention))
    factory = StateFactory(model, optax.sgd(1.0), layout, TRAINING)
    state = factory.create(seed=5)
    shares = jax.tree.map(lambda x: (x.nbytes, x.addressable_shards[0].data.nbytes), state.params)
    batch = testing.random_batch(
        vocab_size=48,
        rows=8,
        source_length=lengths[0],
        target_length=lengths[1],
        packed=packed,
    )

    leaves, tree = jax.tree.flatten(layout.place(jax.tree.map(np.asarray, batch)))

    def step(state, leaves):
        grads, sums = gradients(model, state, tree.unflatten(leaves), TRAINING)
        stepped = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
        return sums.loss / sums.weight, grads, stepped

    with uncached():
        compiled = layout.jit(step).lower(state, leaves).compile()
    results = jax.tree.map(np.asarray, compiled(state, leaves))
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", compiled.as_text())
    return jax.tree.map(np.asarray, state.params), *results, shares, gathered


def each_split() -> Iterator:
    """Every split of 8 devices: one in the default lane, the others in the slow one."""
    for axes in SPLITS:
        quick = tuple(axes.values()) == (2, 2, 2)
        marks = () if quick else pytest.mark.slow
        yield pytest.param(axes, id="x".join(map(str, axes.values())), marks=marks)


@pytest.mark.parametrize("axes", list(each_split()))
def test_a_step_does_not_depend_on_the_mesh(axes: dict, capfd: pytest.CaptureFixture) -> None:
    initial, loss, grads, stepped, *_ = one_step(data=1)
    initial_8, loss_8, grads_8, stepped_8, shares, gathered = one_step(**axes)
    assert "rematerialization" not in capfd.readouterr().err
    if axes["tensor"] > 1:
        V, D = CONFIG.vocab_size, CONFIG.d_model
        assert f"{V},{D}" not in gathered, "the embedding table was made whole on every device"
    if axes["fsdp"] > 1:
        assert gathered, "no parameter was gathered: then none was split"
    assert jax.tree.all(jax.tree.map(np.array_equal, initial_8, initial)), "not the same bits"
    np.testing.assert_allclose(loss_8, loss, rtol=1e-6)
    assert_equals_reference(grads_8, grads, 1e-5)
    assert_equals_reference(stepped_8, stepped, 1e-5)
    split = axes["fsdp"] * axes["tensor"]
    for path, (whole, share) in jax.tree_util.tree_leaves_with_path(
        shares, is_leaf=lambda x: isinstance(x, tuple)
    ):
        name = jax.tree_util.keystr(path)
        matrix = not any(part in name for part in ("scale", "bias"))
        expected = split if matrix else axes["fsdp"]
        if "up_bias" in name:
            expected = axes["tensor"]
        assert share * expected == whole, f"{name}: a device holds {share} of {whole} bytes"


MIXED = {"fsdp": 2, "tensor": 2, "sequence": 2}


@pytest.mark.parametrize(
    ("backend", "axes", "packed"),
    [
        pytest.param("ring", {"sequence": 8}, True, marks=pytest.mark.slow),
        pytest.param("ring", MIXED, False, marks=pytest.mark.long),
        pytest.param("ulysses", {"data": 2, "sequence": 4}, True, marks=pytest.mark.long),
        pytest.param("ulysses", MIXED, False, marks=pytest.mark.slow),
        pytest.param("ring:splash", {"tensor": 2, "sequence": 4}, True, marks=pytest.mark.slow),
        pytest.param("chunked", {"fsdp": 2, "sequence": 4}, True, marks=pytest.mark.long),
        pytest.param("xla", {"data": 2, "sequence": 4}, True, marks=pytest.mark.slow),
    ],
)
def test_a_step_does_not_depend_on_how_the_length_is_split(backend, axes, packed) -> None:
    """Encoder, decoder, cross-attention and loss, where source and target differ in length."""
    lengths = (24, 16)
    initial, loss, grads, stepped, *_ = one_step(lengths=lengths, packed=packed, data=1)
    initial_8, loss_8, grads_8, stepped_8, *_ = one_step(backend, lengths, packed, **axes)
    assert jax.tree.all(jax.tree.map(np.array_equal, initial_8, initial)), "not the same bits"
    np.testing.assert_allclose(loss_8, loss, rtol=1e-6)
    assert_equals_reference(grads_8, grads, 1e-5)
    assert_equals_reference(stepped_8, stepped, 1e-5)


def test_every_rule_book_has_the_same_axes() -> None:
    """An experiment's default rules, and what a layout of one device knows."""
    assert list(Layout.single().rules) == [logical for logical, _ in ShardingConfig().rules]


def test_initial_parameters_can_be_made_alone() -> None:
    with testing.layout():
        model = build_model(CONFIG)
    made = parameters.create(model, testing.layout(fsdp=4, tensor=2), 5)
    assert jax.tree.all(jax.tree.map(np.array_equal, made, one_step(data=1)[0]))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": 3}, r"asks for 3 devices, but there are 8"),
        ({"data": -1, "tensor": 3}, r"asks for 3 devices \(or a multiple\), but there are 8"),
        ({"data": -1, "fsdp": -1}, r"only one axis may be -1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(axes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout(axes, ())


def test_minus_one_takes_what_is_left() -> None:
    assert dict(Layout({"data": -1, "tensor": 4}, ()).mesh.shape) == {"data": 2, "tensor": 4}


def test_what_linen_lets_pass_is_refused() -> None:
    x = jnp.ones((6, 8))
    with pytest.raises(UserError, match="names the mesh axis 'model'; the mesh has data"):
        Layout({"data": 8}, [("batch", ("model",))])
    with pytest.raises(UserError, match="no mesh"):
        constrain(x, "batch", None)
    with testing.layout(fsdp=4, tensor=2):
        with pytest.raises(UserError, match="'bach' has no sharding rule"):
            constrain(x, "bach", None)
        with pytest.raises(UserError, match="size 6, which the mesh axes fsdp = 4 do not divide"):
            constrain(x, "embed", None)
        with pytest.raises(UserError, match="are split over 'tensor'"):
            constrain(jnp.ones((2, 2)), "heads", "mlp")
        with pytest.raises(UserError, match="1 logical axes"):
            constrain(x, "batch")
    with pytest.raises(UserError, match="no mesh"):
        current()


def test_a_parameter_that_does_not_divide_is_named() -> None:
    model = build_model(testing.model_config(d_model=22))
    with pytest.raises(
        UserError, match=r"parameter decoder/.*: axis 'embed' has size 22, .* fsdp = 4"
    ):
        parameters.abstract(model, testing.layout(fsdp=4))


def test_rows_are_placed_where_they_are_split() -> None:
    layout = testing.layout(data=2, fsdp=2, tensor=2)
    rows = np.arange(24, dtype=np.int32).reshape(8, 3)
    assert layout.local_rows(8) == (0, 8)
    placed = layout.place({"ids": rows}, 8)["ids"]
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}


def test_lengths_are_split_unless_the_layout_keeps_them_whole() -> None:
    layout = testing.layout(data=2, sequence=4)
    rows = np.arange(24, dtype=np.int32).reshape(2, 12)
    placed, whole = layout.place(rows, 2), layout.whole("length").place(rows, 2)
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 3)}
    assert {shard.data.shape for shard in whole.addressable_shards} == {(1, 12)}
    with pytest.raises(UserError, match=r"'length' has size 11, .* sequence = 4 do not divide"):
        layout.place(rows[:, :11], 2)


def test_a_mesh_that_no_whole_rings_make_up_takes_parts_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As JAX refuses 4 chips of a TPU's rings of 8."""

    def refuses(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("Failed to find assignment for logical_axis_index 1 of size 4")

    monkeypatch.setattr("transformer.sharding.jax.make_mesh", refuses)
    mesh = testing.layout(data=2, fsdp=4).mesh
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1}
    assert {device.id for device in mesh.devices.flat} == set(range(8))
