"""What decoding asks of every model family, on tiny ones with random parameters."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments import base
from transformer.batch import BOS, EOS, PAD, Batch, Source, Target
from transformer.config import DecodingConfig, from_dict
from transformer.decoding import InputShapes, Translator, beam_search, greedy_search
from transformer.decoding.penalties import length_penalty
from transformer.models import FAMILIES, build_model
from transformer.rng import Stream, key
from transformer.sharding import Layout

B, S, T, W, V = 3, 7, 5, 2, 34
ONE_DEVICE = Layout.single()
LENGTHS_B = [7, 2, 5]  # of the sources; what is left is padding


def source_of(lengths_B, length, seed=0):
    ids_BS = np.random.default_rng(seed).integers(4, V, (len(lengths_B), length), dtype=np.int32)
    return Source.of(ids_BS * (np.arange(length)[None] < np.array(lengths_B)[:, None]))


def target_of(tokens_BT):
    """Teacher forcing of whole rows: every position counts."""
    target = Target.of(tokens_BT)
    ones_BT = np.ones_like(tokens_BT)
    positions_BT = np.broadcast_to(np.arange(ones_BT.shape[1], dtype=np.int32), ones_BT.shape)
    fed_BT = np.concatenate([np.full_like(ones_BT[:, :1], BOS), tokens_BT[:, :-1]], axis=1)
    return target.replace(
        ids=fed_BT, positions=positions_BT, segments=ones_BT, weights=ones_BT.astype(np.float32)
    )


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def subject(request):
    """A tiny model and its parameters, sharpened so that its choices are clear."""
    config: Any = base.get_config()
    base.smoke(config)
    config.model.family = request.param
    config.model.dtype = "float32"
    model = build_model(dataclasses.replace(from_dict(config.to_dict()).model, vocab_size=V))
    target = target_of(np.full((B, T), 5, np.int32))
    batch = Batch(source_of(LENGTHS_B, S), target)
    variables = nn.unbox(ONE_DEVICE.jit(model.init)(key(1, Stream.INIT), batch))
    return model, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) * 2), variables["params"])


@pytest.fixture(scope="module")
def full_hidden(subject):
    """Teacher forcing, compiled once: (source, tokens_BT) -> hidden_BTD."""
    model, params = subject

    @ONE_DEVICE.jit
    def run(params, source, target):
        memory = model.apply({"params": params}, source, method="encode")
        return model.apply({"params": params}, target, memory, method="decode")

    return lambda source, tokens_BT: run(params, source, target_of(tokens_BT))


def test_cached_equals_full_decoding_although_hypotheses_change_places(subject, full_hidden):
    model, params = subject
    source, rng = source_of(LENGTHS_B, S), np.random.default_rng(2)
    start = ONE_DEVICE.jit(
        lambda params, source: model.apply(
            {"params": params},
            model.apply({"params": params}, source, method="encode"),
            T + 2,  # more room than is written
            W,
            method="init_cache",
        )
    )
    step = ONE_DEVICE.jit(
        lambda params, tokens_BW, cache: model.apply(
            {"params": params}, tokens_BW, cache, method="step"
        )
    )
    cache = start(params, source)
    newest_BW, prefixes_BWT = np.full((B, W), BOS, np.int32), np.zeros((B, W, T), np.int32)
    hidden_BWTD = np.zeros((B, W, T, model.config.d_model), np.float32)
    for t in range(T):
        hidden_BWD, cache = step(params, newest_BW, cache)
        hidden_BWTD[:, :, t] = hidden_BWD
        parents_BW = rng.integers(0, W, (B, W), dtype=np.int32)
        cache = cache.reorder(jnp.asarray(parents_BW))
        prefixes_BWT = np.take_along_axis(prefixes_BWT, parents_BW[..., None], axis=1)
        hidden_BWTD = np.take_along_axis(hidden_BWTD, parents_BW[..., None, None], axis=1)
        newest_BW = rng.integers(4, V, (B, W), dtype=np.int32)
        prefixes_BWT[:, :, t] = newest_BW
    for w in range(W):
        expected_BTD = full_hidden(source, prefixes_BWT[:, w])
        np.testing.assert_allclose(hidden_BWTD[:, w], expected_BTD, rtol=1e-5, atol=1e-5)


def search(subject, source, method, *, width, limits_B):
    model, params = subject

    @ONE_DEVICE.jit
    def run(params, source):
        variables = {"params": params}
        memory = model.apply(variables, source, method="encode")

        def step(tokens_BW, cache):
            hidden_BWD, cache = model.apply(variables, tokens_BW, cache, method="step")
            return model.apply(variables, hidden_BWD, method="logits"), cache

        return method(
            step,
            model.apply(variables, memory, T, width, method="init_cache"),
            pad=PAD,
            bos=BOS,
            eos=EOS,
            length=T,
            max_lengths_B=jnp.asarray(limits_B),
            penalty=length_penalty("gnmt", 0.6),
        )

    return jax.device_get(run(params, source))


def test_a_hypothesis_has_the_log_probability_that_the_model_gives_it(subject, full_hidden):
    model, params = subject
    source, width = source_of(LENGTHS_B, S), 3
    beam = partial(beam_search, width=width, n_best=width)
    found = search(subject, source, beam, width=width, limits_B=[5, 4, 5])
    assert np.all(found.lengths <= np.array([5, 4, 5])[:, None]) and np.all(found.lengths > 0)
    assert np.all(np.diff(found.scores) <= 0)
    for w in range(width):
        hidden_BTD = full_hidden(source, found.tokens[:, w])
        with ONE_DEVICE:
            logits_BTV = model.apply({"params": params}, hidden_BTD, method="logits")
        log_probs_BTV = jax.nn.log_softmax(logits_BTV)
        of_labels_BT = np.take_along_axis(
            np.asarray(log_probs_BTV), found.tokens[:, w, :, None], axis=2
        )[..., 0]
        written_BT = np.arange(T)[None] < found.lengths[:, w, None]
        np.testing.assert_allclose(
            found.log_probs[:, w], (of_labels_BT * written_BT).sum(1), rtol=1e-5, atol=1e-5
        )


class Numbers:
    """A tokenizer of numbers: the text "7 12" is the ids 7 and 12."""

    def encode(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids):
        return [" ".join(map(str, row)) for row in ids]


def translator(subject, *, beam, tokens_per_batch=64, layout=ONE_DEVICE):
    model, params = subject
    return Translator(
        model,
        params,
        Numbers(),
        DecodingConfig(
            beam=beam, extra_length=2, n_best=min(2, beam), tokens_per_batch=tokens_per_batch
        ),
        shapes=InputShapes(max_length=8, row_multiple=4),
        layout=layout,
    )


@pytest.fixture(scope="module")
def translate(subject):
    """On one device, eight rows a batch."""
    return translator(subject, beam=3).translate


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(map(str, rng.integers(4, V, rng.integers(1, 8)))) for _ in range(count)]


def test_a_translation_does_not_depend_on_its_neighbours(subject, translate):
    ours, others = sentences(5, seed=3), sentences(13, seed=4)
    alone = translate([*ours, *sentences(3, seed=5)])[:5]
    assert len({line[0].text for line in alone}) > 2  # the model does say different things
    among = translate([*others[:2], *ours, others[2]])[2:7]
    assert alone == among  # one shape: bitwise, scores too
    mixed = translate([*others, *ours])[13:]
    assert alone == mixed
    other_shape = translator(subject, beam=3, tokens_per_batch=16)
    for line, sentence in zip(alone, ours, strict=True):
        (found,) = other_shape.translate([sentence])
        assert [t.tokens for t in found] == [t.tokens for t in line]
        np.testing.assert_allclose(found[0].score, line[0].score, rtol=1e-5)


def test_greedy_equals_beam_1(subject):
    source, limits_B = source_of(LENGTHS_B, S, seed=6), [5, 0, 3]
    beam = partial(beam_search, width=1, n_best=1)
    one = search(subject, source, beam, width=1, limits_B=limits_B)
    other = search(subject, source, greedy_search, width=1, limits_B=limits_B)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)


def test_a_mesh_translates_as_one_device_does(subject, translate):
    config: Any = base.get_config()
    texts = sentences(7, seed=7)
    axes = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}
    layout = Layout(axes, config.sharding.rules).whole("length")
    spread = translator(subject, beam=3, layout=layout).translate(texts)
    whole = translate(texts)
    assert [line[0].tokens for line in spread] == [line[0].tokens for line in whole]
    np.testing.assert_allclose(
        [line[0].score for line in spread], [line[0].score for line in whole], rtol=1e-5
    )
