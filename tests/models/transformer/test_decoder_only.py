"""A decoder alone: prompt and continuation are one sequence, whole, in parts, word by word."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_options import ROWS
from tests.support.equations import Continuation
from tests.support.model_options import LENGTHS, SIZES, B, config, drawn
from transformer import testing
from transformer.batch import Batch
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models import build_model
from transformer.models.initializers import Depth
from transformer.testing import assert_equals_reference

W = 2
QUICK, SLOW = 6, 18  # rows of the default lane, and of both; the others are run by hand


def alone(row: dict, **changes: Any) -> ModelConfig:
    """A row of options for this family, which has no source table."""
    tied = row.get("tied", "three_way").replace("two_way", "none")
    return config(**{**row, "tied": tied, "family": "decoder", **changes})


def each_row() -> Iterator:
    for number, row in enumerate(ROWS):
        marks = () if number < QUICK else pytest.mark.slow if number < SLOW else pytest.mark.long
        yield pytest.param(row, id="-".join(map(str, row.values())), marks=marks)


def run(c: ModelConfig, params: Any, batch: Batch) -> tuple[Any, Any, Any]:
    """Hidden states in teacher forcing, their logits, and word by word [T, B, D]."""
    model = build_model(c)

    def both(params: Any, batch: Batch) -> Any:
        apply: Any = lambda *args, method: model.apply({"params": params}, *args, method=method)  # noqa: E731
        memory = apply(batch.source, method="encode")
        hidden = apply(batch.target, memory, method="decode")
        cache = apply(memory, batch.target.ids.shape[1] + 2, W, method="init_cache")

        def step(cache: Any, ids_B: Any) -> Any:
            # The first hypothesis goes another way, which is nothing to the second.
            out, cache = apply(jnp.stack([ids_B * 0 + 3, ids_B], 1), cache, method="step")
            return cache, out[:, 1]

        _, cached_TBD = jax.lax.scan(step, cache, batch.target.ids.T)
        return hidden, apply(hidden, method="logits"), cached_TBD

    return jax.tree.map(np.asarray, testing.layout().jit(both)(params, batch))


@pytest.mark.parametrize("row", list(each_row()))
def test_a_model_is_its_equations(row: dict) -> None:
    """Teacher forcing as in NumPy; word by word, for two hypotheses, as in teacher forcing."""
    c, batch = alone(row), testing.random_batch(**SIZES)
    params = drawn(c, batch)
    found = run(c, params, batch)
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for b in range(B):
        s, t = LENGTHS["source"][b], LENGTHS["target"][b]
        text = Continuation(c, double)
        hidden = text.decode(
            np.asarray(batch.target.ids[b, :t]), np.asarray(batch.source.ids[b, :s])
        )
        of_row = (found[0][b, :t], found[1][b, :t], found[2][:t, b])
        assert_equals_reference(of_row, (hidden, text.logits(hidden), hidden), 2e-5)


@pytest.mark.parametrize("scheme", ["sinusoidal", "shaw"])
def test_packed_rows_are_pairs_and_pairs_are_one_sequence(scheme: str) -> None:
    """A pair packed with another, alone, and as a target that has its prompt in itself."""
    c = alone({"scheme": scheme})
    packed = testing.random_batch(**SIZES, packed=True)
    params, model = drawn(c, packed), build_model(c)
    hidden = jax.jit(lambda batch: model.apply({"params": params}, batch.target, memory(batch),
                                               method="decode"))  # fmt: skip

    def memory(batch: Batch) -> Any:
        return model.apply({"params": params}, batch.source, method="encode")

    with testing.layout():
        whole = np.asarray(hidden(packed))
        for segment in (1, 2):
            s, t = (np.asarray(x.segments[0]) == segment for x in (packed.source, packed.target))
            ids = jnp.concatenate([packed.source.ids[0][s], packed.target.ids[0][t]])[None]
            ones = jnp.ones_like(ids)
            places = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
            nothing = jax.tree.map(lambda x: jnp.zeros((1, 3), jnp.int32), packed.source)
            target = dataclasses.replace(
                jax.tree.map(lambda x, n=ids.shape[1]: jnp.zeros((1, n), x.dtype), packed.target),
                ids=ids, positions=places, segments=ones,
            )  # fmt: skip
            one = np.asarray(hidden(Batch(nothing, target)))[0, s.sum() :]
            assert_equals_reference(whole[0][t], one)


def test_flops_are_two_for_each_weight_and_token() -> None:
    """Of two tokens, but for the output's; and 4 · length · H · (K + U) for each one's products."""
    c = alone({"feed_forward": "swiglu", "kv_heads": 2})
    tree = jax.tree_util.tree_leaves_with_path(drawn(c, testing.random_batch(**SIZES)))
    matrices = ("query", "key", "value", "output", "up", "gate", "down")
    weights = sum(leaf.size for path, leaf in tree if path[-1].key in matrices)
    products = c.decoder_layers * 20 * c.heads * (c.d_k + c.d_v)
    expected = 2 * (2 * (weights + products) + c.d_model * c.vocab_size)
    assert type(build_model(c)).flops_per_token(c, 10) == expected


def test_it_has_what_it_uses() -> None:
    """No encoder, no table of a source, one of positions."""
    c = alone({"scheme": "learned", "tied": "none", "norm": "pre"})
    params = drawn(c, testing.random_batch(**SIZES))
    assert set(params) == {"embedding", "positions", "decoder", "decoder_norm"}
    assert set(params["embedding"]) == {"table", "output_table"}
    assert set(params["positions"]) == {"target"}
    with pytest.raises(UserError, match=r"model.tied is three_way .* or none"):
        build_model(config(family="decoder", tied="two_way"))


def test_depth_is_that_of_one_stack() -> None:
    """DeepNorm's α and β for decoders alone (Wang et al. 2022, Figure 2)."""
    deep = config(family="decoder", norm="deepnorm", decoder_layers=8)
    assert Depth.of(deep, "target") == Depth(residual=2.0, inner=64**-0.25)
    gpt2 = config(family="decoder", initializer="gpt2", decoder_layers=8)
    assert Depth.of(gpt2, "target") == Depth(output=0.25)
