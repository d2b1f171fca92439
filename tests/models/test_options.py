"""Every option of the Transformer beside every other one: a covering array of their pairs.

Each row of the array is a small model with parameters drawn at random, held to the same equations
in NumPy (equations.py), and decoded word by word beside teacher forcing.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.equations import Sentence
from tests.support.model_options import LENGTHS, SIZES, B, T, config, drawn
from tests.support.pairs import best_first, covering, pairs
from transformer import testing
from transformer.batch import Batch
from transformer.config.model import SCHEMES
from transformer.models import build_model
from transformer.testing import assert_equals_reference

W = 2
OPTIONS = {
    "scheme": SCHEMES,
    "norm": ("post", "pre", "sandwich", "deepnorm"),
    "norm_function": ("layer_norm", "rms_norm"),
    "qk_norm": (False, True),
    "sublayers": ("sequential", "parallel"),
    "feed_forward": ("relu", "gelu", "silu", "geglu", "swiglu"),
    "feed_forward_bias": (True, False),
    "kv_heads": (0, 1, 2),
    "attention_bias": (False, True),
    "tied": ("three_way", "two_way", "none"),
    "scale_embeddings": (True, False),
    "logits_bias": (False, True),
    "logit_soft_cap": (0.0, 3.0),
    "width_scaling": ("none", "mup"),
    "backend": ("xla", "chunked"),
    "unroll": (False, True),
}
ROWS = best_first(covering(OPTIONS))
QUICK = 16  # rows of the default lane


def test_the_array_covers_every_pair() -> None:
    """And its first rows, which the default lane runs, 85 % of them and every value."""
    singles = [(name, str(value)) for name, values in OPTIONS.items() for value in values]
    every = {tuple(sorted((a, b))) for a in singles for b in singles if a[0] != b[0]}
    came = [set().union(*map(pairs, rows)) for rows in (ROWS, ROWS[:QUICK])]
    assert came[0] == every
    assert len(came[1]) >= 0.85 * len(every)
    assert {single for pair in came[1] for single in pair} == set(singles)
    assert len(ROWS) <= 42  # no fewer than 8 x 5 can do


@pytest.mark.parametrize("row", ROWS[:6], ids=lambda row: row["feed_forward"])
def test_flops_are_two_for_each_weight_and_token(row: dict) -> None:
    """And 2 · length · H · (K + U) for each attention's two products."""
    c = config(**row)
    tree = jax.tree_util.tree_leaves_with_path(drawn(c, testing.random_batch(**SIZES)))
    matrices = ("query", "key", "value", "output", "up", "gate", "down")
    weights = sum(leaf.size for path, leaf in tree if path[-1].key in matrices)
    products = (c.encoder_layers + 2 * c.decoder_layers) * 10 * c.heads * (c.d_k + c.d_v)
    expected = 2 * (weights + products + c.d_model * c.vocab_size)
    assert type(build_model(c)).flops_per_token(c, 10) == expected


def each_row() -> Iterator:
    for number, row in enumerate(ROWS):
        marks = () if number < QUICK else pytest.mark.slow
        yield pytest.param(row, id="-".join(map(str, row.values())), marks=marks)


@pytest.mark.parametrize("row", list(each_row()))
def test_a_model_is_its_equations(row: dict) -> None:
    """Teacher forcing as in NumPy; word by word, for two hypotheses, as in teacher forcing."""
    c, batch = config(**row), testing.random_batch(**SIZES)
    model, params = build_model(c), drawn(c, batch)

    @testing.layout().jit
    def run(params: Any, batch: Batch) -> Any:
        apply: Any = lambda *args, method: model.apply({"params": params}, *args, method=method)  # noqa: E731
        memory = apply(batch.source, method="encode")
        hidden = apply(batch.target, memory, method="decode")
        cache = apply(memory, T + 2, W, method="init_cache")

        def step(cache: Any, ids_B: Any) -> Any:
            # The second hypothesis goes another way, which is nothing to the first.
            out, cache = apply(jnp.stack([ids_B, ids_B * 0 + 3], 1), cache, method="step")
            return cache, out[:, 0]

        _, cached_TBD = jax.lax.scan(step, cache, batch.target.ids.T)
        return memory.hidden, hidden, apply(hidden, method="logits"), cached_TBD

    found = jax.tree.map(np.asarray, run(params, batch))
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for b in range(B):
        s, t = LENGTHS["source"][b], LENGTHS["target"][b]
        sentence = Sentence(c, double)
        memory = sentence.encode(np.asarray(batch.source.ids[b, :s]))
        hidden = sentence.decode(np.asarray(batch.target.ids[b, :t]), memory)
        expected = memory, hidden, sentence.logits(hidden), hidden
        of_row = (found[0][b, :s], found[1][b, :t], found[2][b, :t], found[3][:t, b])
        assert_equals_reference(of_row, expected, 2e-5)
