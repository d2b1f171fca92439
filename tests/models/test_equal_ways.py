"""Ways of computing that must not matter, and what dropout of weights and of layers does.

Loops or straight code, activations kept or computed again, heads grouped or repeated.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_options import ROWS
from tests.support.model_options import SIZES, config, drawn
from tests.support.pairs import best_first, covering
from transformer import testing
from transformer.batch import Batch
from transformer.config import ModelConfig
from transformer.config.model import REMAT, SCHEMES
from transformer.models import build_model
from transformer.testing import assert_equals_reference

BATCH = testing.random_batch(**SIZES, packed=True)
WAYS = {
    "unroll": (True, False),
    "remat": REMAT[1:],
    "scheme": SCHEMES,
    "norm": ("post", "pre", "sandwich", "deepnorm"),
    "sublayers": ("sequential", "parallel"),
    "feed_forward": ("relu", "swiglu"),
    "qk_norm": (False, True),
    "kv_heads": (0, 2),
    "dropout": (0.0, 0.2),
    "attention_dropout": (0.0, 0.3),
    "layer_drop": (0.0, 0.4),
    "backend": ("xla", "chunked"),
}
# Rows of the default lane, of both, and by hand; a row is a minute.
QUICK, SLOW, LONG = 1, 4, 12


def each_row() -> Iterator:
    for number, row in enumerate(best_first(covering(WAYS))[:LONG]):
        marks = () if number < QUICK else pytest.mark.slow if number < SLOW else pytest.mark.long
        yield pytest.param(row, id="-".join(map(str, row.values())), marks=marks)


@pytest.mark.parametrize("row", list(each_row()))
def test_unrolled_and_rematerialised_equal_scanned(row: dict) -> None:
    """Values and gradients, with the same draws of dropout."""
    c = config(**row)
    params = drawn(c, BATCH)
    cotangent = jax.random.normal(jax.random.key(1), (*BATCH.target.ids.shape, c.vocab_size))

    def run(c: ModelConfig) -> Any:
        def loss(params: Any) -> Any:
            model: Any = build_model(c)
            rngs = {"dropout": jax.random.key(2)}
            logits = model.apply({"params": params}, BATCH, rngs=rngs)
            return jnp.vdot(logits * BATCH.target.weights[..., None], cotangent)

        return testing.layout().jit(jax.value_and_grad(loss))(params)

    (value, grads), (expected, expected_grads) = (
        run(each) for each in (c, dataclasses.replace(c, unroll=False, remat="none"))
    )
    assert_equals_reference(value, expected, 2e-5)
    # What is added to every key alike has no gradient, and its noise is compared with nothing.
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_grads))
    noted = jax.tree_util.tree_leaves_with_path(expected_grads)
    for (path, want), got in zip(noted, jax.tree.leaves(grads), strict=True):
        apart, size = float(jnp.abs(got - want).max()), float(jnp.abs(want).max())
        where = jax.tree_util.keystr(path)
        assert apart <= 2e-5 * max(size, 1e-2 * largest), f"{where}: {apart} of {size}"


def test_grouped_heads_are_heads_that_are_the_same() -> None:
    """G = 2 for H = 4 is multi-head attention whose keys and values come in pairs; G = H is it."""
    grouped = config(kv_heads=2, attention_bias=True)
    params = drawn(grouped, BATCH)

    def repeat(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        if name not in ("key", "value", "key_bias", "value_bias"):
            return leaf
        return jnp.repeat(leaf, 2, axis=1 if name.endswith("bias") else 2)  # N first

    def run(c: ModelConfig, params: Any) -> Any:
        model: Any = build_model(c)
        return testing.layout().jit(lambda params: model.apply({"params": params}, BATCH))(params)

    expected = run(grouped, params)
    whole = jax.tree_util.tree_map_with_path(repeat, params)
    as_many, unsaid = (run(dataclasses.replace(grouped, kv_heads=G), whole) for G in (4, 0))
    assert_equals_reference(as_many, expected, 1e-5)
    np.testing.assert_array_equal(as_many, unsaid)


def test_a_dropped_layer_is_as_if_not_there() -> None:
    """Whatever is drawn, the encoder is itself with some layers' sub-layers giving nothing."""
    c = config(norm="pre", layer_drop=0.5, encoder_layers=3)
    model, params = build_model(c), drawn(c, BATCH)

    def encode(params: Any, rngs: Any = None) -> Any:
        return model.apply({"params": params}, BATCH.source, method="encode", rngs=rngs).hidden

    whole = testing.layout().jit(encode)
    dropping = testing.layout().jit(lambda key: encode(params, {"dropout": key}))

    def without(dropped: tuple[int, ...]) -> Any:
        def silence(path: Any, leaf: Any) -> Any:
            silent = path[0].key == "encoder" and path[-1].key in ("output", "down", "down_bias")
            keep = np.array([n not in dropped for n in range(3)]) if silent else np.ones(len(leaf))
            return leaf * keep.reshape(-1, *[1] * (leaf.ndim - 1)).astype(np.float32)

        return np.asarray(whole(jax.tree_util.tree_map_with_path(silence, params)))

    subsets = [tuple(n for n in range(3) if bits >> n & 1) for bits in range(8)]
    possible = {dropped: without(dropped) for dropped in subsets}
    came = set()
    for seed in range(12):
        found = np.asarray(dropping(jax.random.key(seed)))
        near = [d for d, x in possible.items() if np.abs(x - found).max() < 1e-5]
        assert len(near) == 1
        came |= set(near)
    assert len(came) >= 4


@pytest.mark.parametrize("row", ROWS[:8], ids=lambda row: row["scheme"])
def test_options_compute_in_bfloat16(row: dict) -> None:
    """Products in it, logits out of it, under strict promotion of types; nothing is run."""
    c = config(**row, dtype="bfloat16")
    model, params = build_model(c), drawn(c, BATCH)

    def run(params: Any, batch: Batch) -> Any:
        apply: Any = lambda *args, method: model.apply(  # noqa: E731
            {"params": params}, *args, method=method, rngs={"dropout": jax.random.key(0)}
        )
        memory = apply(batch.source, method="encode")
        hidden = apply(batch.target, memory, method="decode")
        cache = apply(memory, 3, 2, method="init_cache")
        out, cache = apply(batch.target.ids[:, :2], cache, method="step")
        return memory.hidden, hidden, cache.self_kv, out, apply(hidden, method="logits")

    with testing.layout():
        *low, logits = jax.eval_shape(run, params, BATCH)
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert logits.dtype == jnp.float32


def test_remat_computes_again_what_its_name_says() -> None:
    """Products in a gradient's program: the more, the less was saved."""

    def products(remat: str) -> int:
        c = config(remat=remat, backend="xla")
        params = drawn(c, BATCH)

        def total(params: Any) -> Any:
            logits: Any = build_model(c).apply({"params": params}, BATCH)
            return jnp.sum(logits)

        with testing.layout():
            return str(jax.make_jaxpr(jax.grad(total))(params)).count("= dot_general")

    none, dots, no_batch, full = (
        products(f) for f in ("none", "dots_saveable", "dots_with_no_batch_dims_saveable", "full")
    )
    # Saved or not: products with weights, and with no_batch_dims the two of each attention again.
    assert none == dots < no_batch < full
    assert no_batch - none == 2 * 3


def test_dropout_of_weights_needs_a_key_and_is_not_that_of_residuals() -> None:
    c = config(attention_dropout=0.5)
    model, params = build_model(c), drawn(c, BATCH)
    run: Any = testing.layout().jit(
        lambda key: model.apply({"params": params}, BATCH, rngs={"dropout": key})
    )
    first, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    assert bool(jnp.all(first == again)) and bool(jnp.any(first != other))
    with testing.layout():
        plain = model.apply({"params": params}, BATCH)
        without = build_model(config()).apply({"params": params}, BATCH)
    assert bool(jnp.all(plain == without))
