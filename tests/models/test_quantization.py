"""Weights as whole numbers: near the float ones, product by product and as a whole model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import base
from tests.decoding.test_models import Numbers
from transformer import testing
from transformer.config import DecodingConfig, from_dict
from transformer.decoding import InputShapes, Translator
from transformer.errors import UserError
from transformer.models.products import product
from transformer.models.quantization import Int8, quantized, rounded

FAMILIES = ["transformer", "decoder", "encoder"]
SPECS = {  # and the axes of the weight that are summed over
    "BTD,DHK->BTHK": (0,),
    "BTHU,HUD->BTD": (0, 1),
    "BTF,FD->BTD": (0,),
    "BTD,VD->BTV": (1,),
}


def test_rounding_is_to_the_nearest_of_255_and_zeros_stay() -> None:
    x_DF = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    x_DF[:, 3] = 0.0
    small = rounded(jnp.asarray(x_DF), (0,))
    assert small.values.dtype == jnp.int8 and small.scale.shape == (1, 7)
    np.testing.assert_allclose(small.scale[0], np.where(np.any(x_DF, 0), abs(x_DF).max(0), 1) / 127)
    off_DF = np.abs(np.asarray(small.values) * np.asarray(small.scale) - x_DF)
    assert np.all(off_DF <= np.asarray(small.scale) * 0.5001) and not np.any(small.values[:, 3])
    assert np.all(np.abs(small.values).max(0)[[0, 1, 2, 4, 5, 6]] == 127)


@pytest.mark.parametrize("spec", SPECS)
def test_a_product_is_that_of_the_rounded_factors(spec: str) -> None:
    sizes = dict(zip("BTDHKUFV", (2, 3, 8, 2, 5, 6, 9, 11), strict=True))
    operand, weight = spec.split("->")[0].split(",")
    draw = np.random.default_rng(1).normal
    x, w = (jnp.asarray(draw(size=[sizes[a] for a in s]), jnp.float32) for s in (operand, weight))
    result = spec.split("->")[1]
    small_w = rounded(w, SPECS[spec])
    small_x = rounded(x, tuple(i for i, a in enumerate(operand) if a not in result))
    back = lambda small: np.asarray(small.values, np.float64) * np.asarray(small.scale)  # noqa: E731
    expected = np.einsum(spec, back(small_x), back(small_w))
    np.testing.assert_allclose(product(spec, x, small_w), expected, rtol=1e-5, atol=1e-5)
    far = np.abs(product(spec, x, small_w) - product(spec, x, w)).max()
    assert 0 < far < 0.03 * float(jnp.abs(product(spec, x, w)).max())


def small_model(family: str) -> tuple[Any, Any, Any]:
    c = testing.model_config(family=family, tied="none", dropout=0.0)
    batch = testing.random_batch(vocab_size=c.vocab_size)
    with testing.layout():
        model, variables = testing.initialised(c, batch)
    return model, variables["params"], batch


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_keeps_what_it_says_nearly(family: str) -> None:
    """All of its matrices are whole numbers, nothing else is, and its scores move little."""
    model, params, batch = small_model(family)
    small = quantized(params)
    is_int8 = lambda leaf: isinstance(leaf, Int8)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(small, is_leaf=is_int8)
    for (path, leaf), (_, was) in zip(
        leaves, jax.tree_util.tree_leaves_with_path(params), strict=True
    ):
        name = path[-1].key  # pyright: ignore[reportAttributeAccessIssue]
        matrix = not name.endswith("bias") and name != "scale"
        assert is_int8(leaf) == matrix, name
        assert (leaf.values if matrix else leaf).shape == was.shape
    with testing.layout():
        apply = jax.jit(lambda params: model.apply({"params": params}, batch))
        logits, expected = apply(small), apply(params)
    error = float(jnp.sqrt(jnp.mean((logits - expected) ** 2)) / jnp.std(expected))
    assert 1e-4 < error < 0.05


def test_a_translator_computes_with_them_and_takes_others() -> None:
    model, params, _ = small_model("transformer")

    decoding = DecodingConfig(beam=2, extra_length=2, tokens_per_batch=64)
    shapes = InputShapes(max_length=8, row_multiple=1)
    exact, small = (
        Translator(
            model,
            params,
            Numbers(),
            dataclasses.replace(decoding, weights=weights),
            shapes=shapes,
        )
        for weights in ("float", "int8")
    )
    text = ["5 7 9", "4 4 31 12"]
    scores, others = ([line[0].score for line in t.translate(text)] for t in (exact, small))
    assert scores != others
    np.testing.assert_allclose(scores, others, rtol=0.05)
    small.params = jax.tree.map(jnp.zeros_like, params)
    assert small.translate(text)[0][0].score != others[0]


def test_recurrent_networks_refuse() -> None:
    config: Any = base.get_config()
    config.model.family = "lstm"
    config.decoding.weights = "int8"
    with pytest.raises(
        UserError, match=r"decoding\.weights is 'int8', which model\.family = 'lstm'"
    ):
        from_dict(config.to_dict())
