"""Initial values by name, DeepNorm's and GPT-2's factors, and what μP keeps when a model widens."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.support.model_options import config
from transformer import testing
from transformer.losses import batch_loss, cross_entropy
from transformer.models import build_model, parameters
from transformer.models.initializers import Depth, embedding_initializer, initializer
from transformer.testing import assert_equals_reference

FAN_IN, FAN_OUT = 300, 200


@pytest.mark.parametrize(
    ("name", "deviation", "embedding"),
    [
        ("xavier_uniform", (2 / (FAN_IN + FAN_OUT)) ** 0.5, 12**-0.5),
        ("xavier_normal", (2 / (FAN_IN + FAN_OUT)) ** 0.5, 12**-0.5),
        ("lecun_normal", FAN_IN**-0.5, 12**-0.5),
        ("he_normal", (2 / FAN_IN) ** 0.5, 12**-0.5),
        ("normal", 0.02, 0.02),
        ("gpt2", 0.02, 0.02),
    ],
)
def test_deviations_are_the_papers(name: str, deviation: float, embedding: float) -> None:
    c = config(initializer=name)
    for gain in (1.0, 0.5):
        w = initializer(c, 0, 1, gain)(jax.random.key(0), (FAN_IN, FAN_OUT))
        assert float(w.std()) == pytest.approx(gain * deviation, rel=0.02)
    uniform = float(abs(initializer(c, 0, 1, 1.0)(jax.random.key(0), (300, 200))).max())
    assert (uniform < 1.8 * deviation) == (name == "xavier_uniform")
    table = embedding_initializer(c, 12)(jax.random.key(0), (FAN_IN, FAN_OUT))
    assert float(table.std()) == pytest.approx(embedding, rel=0.02)


def test_factors_of_depth_are_the_papers() -> None:
    """DeepNorm for 18 layers a side (Wang et al. 2022, Figure 2); GPT-2: 1/√(residual layers)."""
    deep = config(norm="deepnorm", encoder_layers=18, decoder_layers=18)
    source, target = (Depth.of(deep, side) for side in ("source", "target"))
    assert (source.residual, source.inner) == pytest.approx((0.81 * 18**0.3125, 0.87 * 18**-0.3125))
    assert (target.residual, target.inner) == pytest.approx((54**0.25, 216**-0.25))
    gpt2 = config(initializer="gpt2", encoder_layers=8, decoder_layers=12)
    assert Depth.of(gpt2, "source") == Depth(output=0.25)
    assert Depth.of(gpt2, "target") == Depth(output=6**-1.0)
    assert Depth.of(config(), "target") == Depth()


@functools.cache
def created(**options: Any) -> Any:
    c = config(d_model=96, d_ff=128, decoder_layers=2, encoder_layers=2, **options)
    return parameters.create(build_model(c), testing.layout(), 0)


def ratios(**options: Any) -> dict[str, float]:
    """How much larger initial weights are than without these options, where they are."""
    found, plain = created(**options), created()
    pairs = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(plain), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(a.std() / b.std())
        for (path, a), b in pairs
        if b.ndim > 2 and abs(float(a.std() / b.std()) - 1) > 1e-3
    }


def test_deepnorm_scales_values_outputs_and_feed_forward() -> None:
    depth = {side: Depth.of(config(norm="deepnorm"), side) for side in ("source", "target")}
    scaled = {
        f"{stack}/{weight}": pytest.approx(depth[side].inner, rel=1e-3)
        for stack, side in (("encoder", "source"), ("decoder", "target"))
        for weight in (
            *(f"self_attention/{w}" for w in ("value", "output")),
            *(f"feed_forward/{w}" for w in ("up", "down")),
            *(f"cross_attention/{w}" for w in ("value", "output") if stack == "decoder"),
        )
    }
    assert ratios(norm="deepnorm") == scaled


@functools.cache
def trained(width: int, scaling: str) -> float:
    """How far the logits have moved after five updates of Adam, in the mean."""
    c = config(
        d_model=width,
        d_ff=2 * width,
        d_k=width // 4,
        d_v=width // 4,
        base_d_model=32,
        base_d_k=8,
        width_scaling=scaling,
        norm="pre",
    )
    batch = testing.random_batch(vocab_size=c.vocab_size, rows=8)
    layout, model = testing.layout(), build_model(c)
    params = parameters.create(model, layout, 0)
    optimizer = optax.adam(0.01)

    def loss(params: Any) -> Any:
        apply = functools.partial(model.apply, {"params": params})
        return batch_loss(apply, batch, cross_entropy(), chunks=1).loss

    @layout.jit
    def update(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    logits = layout.jit(lambda params: model.apply({"params": params}, batch))
    before, state = logits(params), optimizer.init(params)
    for _ in range(5):
        params, state = update(params, state)
    return float(np.mean(np.abs(np.asarray(logits(params) - before))))


@pytest.mark.optax
@pytest.mark.slow
def test_with_mup_updates_do_as_much_at_any_width() -> None:
    """Eight times the base width, at the same learning rate."""
    assert trained(32, "mup") == pytest.approx(trained(32, "none"), rel=1e-5)
    assert 0.5 < trained(256, "mup") / trained(32, "mup") < 2.0
    assert trained(256, "none") / trained(32, "none") > 2.0


def test_at_its_base_width_mup_is_nothing() -> None:
    assert_equals_reference(
        created(width_scaling="mup", base_d_model=96, base_d_k=6), created(), 0.0
    )
