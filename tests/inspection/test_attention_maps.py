"""The recorded weights are the ones that the model computes with, and joining pieces keeps them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from transformer import testing
from transformer.batch import Batch, Source, Target
from transformer.config import AttentionConfig
from transformer.errors import UserError
from transformer.inspection import AttentionMaps, attention_maps, word_map, words
from transformer.models import build_model
from transformer.sharding import Layout

N, M, B, T, S, H = 3, 2, 2, 5, 7, 3  # N encoder layers, M decoder layers
LENGTHS = {"source": (7, 4), "target": (3, 5)}

CONFIG = testing.model_config(
    encoder_layers=N,
    decoder_layers=M,
    d_model=22,
    d_ff=13,
    heads=H,
    d_k=11,
    d_v=17,
    dropout=0.0,
    attention=AttentionConfig(backend="reference"),
    vocab_size=271,
)


def batch() -> Batch:
    random = np.random.default_rng(0)

    def side(length: int, lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (B, length))
        segments = (positions < np.array(lengths)[:, None]).astype(np.int32)
        ids = random.integers(4, 271, (B, length)).astype(np.int32) * segments
        return {"ids": ids, "positions": positions * segments, "segments": segments}

    source, target = side(S, LENGTHS["source"]), side(T, LENGTHS["target"])
    weights = target["segments"].astype(np.float32)
    return Batch(Source(**source), Target(**target, labels=target["ids"], weights=weights))


def look(backend: str = "reference", layers: list[int] | None = None) -> AttentionMaps:
    config = dataclasses.replace(CONFIG, attention=AttentionConfig(backend=backend))
    model, pairs = build_model(config), batch()
    with Layout.single() as layout:
        params = nn.unbox(layout.jit(model.init)(jax.random.key(0), pairs)["params"])
        # Sharper than a fresh model's, whose attention is nearly uniform.
        params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
        return attention_maps(model, params, pairs.source, pairs.target, layers=layers)


@pytest.fixture(scope="module")
def maps() -> AttentionMaps:
    return look()


@pytest.mark.parametrize(("backend", "layers"), [("chunked", None), ("splash", [1])])
def test_any_backend_and_the_layers_asked_for(
    maps: AttentionMaps, backend: str, layers: list[int] | None
) -> None:
    """Backends that never hold the weights show the same ones."""
    found = look(backend, layers)
    for use, weights in vars(maps).items():
        expected = weights if layers is None else np.asarray(weights)[layers]
        testing.assert_equals_reference(getattr(found, use), expected, 1e-3)  # sharp weights


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"layers \[2\] are not all of the 0 to 1 that attend"):
        look(layers=[2])


def test_shapes(maps: AttentionMaps) -> None:
    assert maps.encoder_self_NBHSS is not None and maps.encoder_self_NBHSS.shape == (N, B, H, S, S)
    assert maps.decoder_self_NBHTT is not None and maps.decoder_self_NBHTT.shape == (M, B, H, T, T)
    assert maps.cross_NBHTS is not None and maps.cross_NBHTS.shape == (M, B, H, T, S)


@pytest.mark.parametrize(
    ("use", "query", "key"),
    [
        ("encoder_self_NBHSS", "source", "source"),
        ("decoder_self_NBHTT", "target", "target"),
        ("cross_NBHTS", "target", "source"),
    ],
)
def test_rows_are_distributions_over_the_sentence(
    maps: AttentionMaps, use: str, query: str, key: str
) -> None:
    weights = np.asarray(getattr(maps, use))
    for b in range(B):
        t, s = LENGTHS[query][b], LENGTHS[key][b]
        np.testing.assert_allclose(weights[:, b, :, :t, :s].sum(-1), 1.0, atol=1e-5)
        assert not weights[:, b, :, t:].any() and not weights[:, b, :, :, s:].any()
    one = weights[:, 1, :, 1]
    assert np.ptp(one, axis=0).max() > 0.1 and np.ptp(one, axis=1).max() > 0.1  # layers, heads


def test_the_decoder_looks_back_only(maps: AttentionMaps) -> None:
    weights = np.asarray(maps.decoder_self_NBHTT)
    assert not np.triu(weights, k=1).any() and np.tril(weights, k=-1).any()


def test_a_family_without_attention_is_refused() -> None:
    class Blind(nn.Module):
        def encode(self, source: Source) -> jax.Array:
            return jnp.zeros(source.ids.shape)

        def decode(self, target: Target, memory: jax.Array) -> jax.Array:
            return jnp.zeros(target.ids.shape)

    pairs = batch()
    with Layout.single(), pytest.raises(UserError, match="the model records no attention"):
        attention_maps(Blind(), {}, pairs.source, pairs.target)


def test_words_of_pieces() -> None:
    pieces = ["▁la", "▁ca", "sa", "▁", "<0xC3>", "<0xA9>", "x", "</s>"]
    assert words(pieces) == [
        ("la", slice(0, 1)),
        ("casa", slice(1, 3)),
        ("éx", slice(3, 7)),
        ("</s>", slice(7, 8)),
    ]
    assert [word for word, _ in words(["<s>", "ro", "ja", "</s>", "▁ja"])] == [
        "<s>",
        "roja",
        "</s>",
        "ja",
    ]
    assert words(["<0xFF>"])[0][0] == "�" and words([]) == []


TARGET, SOURCE = ["▁the", "▁ho", "use", "</s>"], ["▁la", "▁c", "as", "a", "</s>"]


def test_word_map_sums_over_sources_and_averages_over_targets() -> None:
    weights_TS = np.array(
        [
            [0.8, 0.1, 0.0, 0.0, 0.1],
            [0.2, 0.3, 0.2, 0.1, 0.2],
            [0.0, 0.0, 0.5, 0.1, 0.4],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    joined = word_map(weights_TS, TARGET, SOURCE)
    assert (joined.target, joined.source) == (["the", "house", "</s>"], ["la", "casa", "</s>"])
    expected = [[0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(joined.weights_TS, expected, atol=1e-6)

    inner = word_map(weights_TS, TARGET, SOURCE, keep_end=False)
    assert (inner.target, inner.source) == (["the", "house"], ["la", "casa"])
    np.testing.assert_allclose(inner.weights_TS, [[0.8, 0.1], [0.1, 0.6]], atol=1e-6)

    with pytest.raises(ValueError, match=r"\(4, 5\) for 5 target and 4 source"):
        word_map(weights_TS, SOURCE, TARGET)


PIECES = st.lists(st.sampled_from(["▁a", "b", "▁", "<0x41>", "</s>", "<unk>"]), min_size=1)


@given(target=PIECES, source=PIECES, seed=st.integers(0, 99))
def test_word_rows_are_distributions_too(target: list[str], source: list[str], seed: int) -> None:
    weights_TS = np.random.default_rng(seed).dirichlet(np.ones(len(source)), len(target))
    joined = word_map(weights_TS, target, source)
    assert joined.weights_TS.shape == (len(joined.target), len(joined.source))
    np.testing.assert_allclose(joined.weights_TS.sum(1), 1.0, atol=1e-5)
