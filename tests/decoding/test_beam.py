"""Searches over models that are tables.

What comes next depends on the sentence and on every token of the prefix, which the cache's state
alone remembers. So a beam that reorders wrongly is found out.
"""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.prefix_cache import PrefixCache
from transformer.decoding import Hypotheses, beam_search, greedy_search
from transformer.decoding.penalties import length_penalty
from transformer.decoding.search import best_next
from transformer.errors import UserError
from transformer.upstream.top_k import PART

PAD, BOS, EOS = 0, 1, 2
B, V, L, M = 5, 7, 4, 211  # M rows of each sentence's table
WORDS = range(3, V)
SPACE = sum(len(WORDS) ** n for n in range(L))  # sentences of at most L tokens, EOS included
MULTIPLIERS = (13 ** np.arange(L)).astype(np.int32)


def row_of(prefix_L):
    """The row of the table behind a prefix of ids, padded with zeros; NumPy or JAX."""
    return prefix_L @ MULTIPLIERS % M


def step(tokens_BW, cache):
    prefix_BWL = cache.prefix.at[:, :, cache.index].set(tokens_BW)
    logits_BWV = jnp.take_along_axis(cache.source, row_of(prefix_BWL)[..., None], axis=1)
    return logits_BWV, cache.replace(index=cache.index + 1, prefix=prefix_BWL)


def empty_cache(tables_BMV, width):
    batch = tables_BMV.shape[0]
    prefix = jnp.zeros((batch, width, L), jnp.int32)
    return PrefixCache(jnp.int32(0), jnp.ones((batch, 1), jnp.int32), tables_BMV, prefix)


@partial(jax.jit, static_argnames=("width", "n_best", "name"))
def beam(tables_BMV, limits_B, alpha, *, width, name, n_best=None):
    return beam_search(
        step,
        empty_cache(tables_BMV, width),
        pad=PAD,
        bos=BOS,
        eos=EOS,
        width=width,
        n_best=n_best or width,
        length=L,
        max_lengths_B=limits_B,
        penalty=length_penalty(name, alpha),
    )


@partial(jax.jit, static_argnames="name")
def greedy(tables_BMV, limits_B, alpha, *, name):
    return greedy_search(
        step,
        empty_cache(tables_BMV, 1),
        pad=PAD,
        bos=BOS,
        eos=EOS,
        length=L,
        max_lengths_B=limits_B,
        penalty=length_penalty(name, alpha),
    )


def random_tables(seed, batch=B):
    return np.random.default_rng(seed).normal(0, 2, (batch, M, V)).astype(np.float32)


LIMITS_B = np.array([4, 3, 0, 1, 4])


def divisor(name, alpha, n):
    return ((5 + n) / 6) ** alpha if name == "gnmt" else n**alpha


def following(table_MV, prefix):
    """Log-probabilities after a prefix, by the definition."""
    read = np.zeros(L, np.int32)
    read[: len(prefix) + 1] = [BOS, *prefix]
    logits = table_MV[row_of(read)].astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


def every_sentence(table_MV, limit, name, alpha):
    """[(score, log-probability, tokens)] of all sentences of at most `limit` tokens, best first."""
    found = []
    for n in range(1, limit + 1):
        for words in itertools.product(WORDS, repeat=n - 1):
            tokens = (*words, EOS)
            log_prob = sum(following(table_MV, tokens[:i])[tokens[i]] for i in range(n))
            found.append((log_prob / divisor(name, alpha, n), log_prob, tokens))
    return sorted(found, reverse=True)


def plain_beam(table_MV, limit, name, alpha, width):
    """Beam search of one sentence, spelled out, and never stopped before the limit."""
    live, finished = ([(0.0, ())] if limit else []), []
    for n in range(1, limit + 1):
        candidates = [
            (log_prob + following(table_MV, prefix)[token], (*prefix, token))
            for log_prob, prefix in live
            for token in ((EOS,) if n == limit else (EOS, *WORDS))
        ]
        best = sorted(candidates, reverse=True)[:width]
        finished += [(lp / divisor(name, alpha, n), lp, t) for lp, t in best if t[-1] == EOS]
        live = [(lp, t) for lp, t in best if t[-1] != EOS]
    return sorted(finished, reverse=True)[:width]


def assert_equal(found: Hypotheses, expected):
    """`expected`: for every sentence, its (score, log-probability, tokens), best first."""
    found = jax.device_get(found)
    for b, sentence in enumerate(expected):
        count = np.isfinite(found.scores[b]).sum()
        assert count == min(len(sentence), found.scores.shape[1])
        assert np.all(found.scores[b, count:] == -np.inf)
        assert np.all(found.lengths[b, count:] == 0)
        for w, (score, log_prob, tokens) in enumerate(sentence[:count]):
            assert found.lengths[b, w] == len(tokens)
            np.testing.assert_array_equal(found.tokens[b, w], [*tokens, *[PAD] * (L - len(tokens))])
            np.testing.assert_allclose(found.scores[b, w], score, rtol=1e-5)
            np.testing.assert_allclose(found.log_probs[b, w], log_prob, rtol=1e-5)


@pytest.mark.parametrize("name", ["gnmt", "power"])
def test_a_beam_as_wide_as_the_space_equals_brute_force(name):
    for seed, alpha in enumerate([0.0, 0.6, 1.0, 2.5]):
        tables_BMV = random_tables(seed)
        found = beam(tables_BMV, LIMITS_B, alpha, width=SPACE, name=name)
        expected = [every_sentence(tables_BMV[b], LIMITS_B[b], name, alpha) for b in range(B)]
        assert_equal(found, expected)


@pytest.mark.parametrize("width", [2, 5, 11])
def test_every_width_equals_the_definition_although_it_stops_early(width):
    for seed, alpha in enumerate([0.0, 0.6, 1.0, 2.5, -1.0]):
        tables_BMV = random_tables(100 + seed)
        tables_BMV[..., EOS] += 1.0
        expected = [plain_beam(tables_BMV[b], LIMITS_B[b], "gnmt", alpha, width) for b in range(B)]
        found = beam(tables_BMV, LIMITS_B, alpha, width=width, name="gnmt")
        assert_equal(found, expected)
        best = beam(tables_BMV, LIMITS_B, alpha, width=width, name="gnmt", n_best=1)
        assert_equal(best, [sentence[:1] for sentence in expected])


@pytest.mark.parametrize("name", ["gnmt", "power"])
def test_beam_1_equals_greedy_bitwise(name):
    batch = 97
    limits_B = np.random.default_rng(3).integers(0, L + 2, batch)  # some above L: capped
    for seed, alpha in enumerate([0.0, 0.6, 1.0, 5.0]):
        tables_BMV = random_tables(200 + seed, batch)
        one = beam(tables_BMV, limits_B, alpha, width=1, name=name)
        other = greedy(tables_BMV, limits_B, alpha, name=name)
        for field in dataclasses.fields(Hypotheses):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
        assert np.all(one.lengths[:, 0] <= np.minimum(limits_B, L))


def table_of(choices):
    """One sentence's table: {prefix: {token: probability}}; elsewhere EOS is certain."""
    table_MV = np.full((M, V), -30.0, np.float32)
    table_MV[:, EOS] = 0.0
    for prefix, probabilities in choices.items():
        read = np.zeros(L, np.int32)
        read[: len(prefix) + 1] = [BOS, *prefix]
        table_MV[row_of(read)] = -30.0
        for token, probability in probabilities.items():
            table_MV[row_of(read), token] = np.log(probability)
    return table_MV[None]


def test_eos_counts_only_among_the_first_w_candidates():
    """p(EOS) is 0.4 beside a word of 0.6, then 0.55: to end at once has 0.4, the other 0.33."""
    tables_1MV = table_of({(): {EOS: 0.4, 3: 0.6}, (3,): {EOS: 0.55, 4: 0.45}})
    for search in (greedy, partial(beam, width=1)):
        found = search(tables_1MV, np.array([L]), 0.0, name="gnmt")
        np.testing.assert_array_equal(found.tokens[0, 0], [3, EOS, PAD, PAD])
    wider = beam(tables_1MV, np.array([L]), 0.0, width=2, name="gnmt")
    np.testing.assert_array_equal(wider.tokens[0, 0], [EOS, PAD, PAD, PAD])


def test_beam_1_ends_with_eos_although_a_longer_sentence_scores_better():
    tables_1MV = table_of({(): {EOS: 0.55, 3: 0.45}})  # behind 3, EOS is certain
    alpha = 3.0
    assert np.log(0.45) / 2**alpha > np.log(0.55)
    for search in (greedy, partial(beam, width=1)):
        found = search(tables_1MV, np.array([L]), alpha, name="power")
        np.testing.assert_array_equal(found.tokens[0, 0], [EOS, PAD, PAD, PAD])


def test_at_the_last_position_eos_costs_what_the_model_says():
    tables_1MV = table_of({(): {3: 1.0}, (3,): {3: 0.75, EOS: 0.25}})
    for search in (greedy, partial(beam, width=2)):
        found = search(tables_1MV, np.array([2]), 0.0, name="gnmt")
        np.testing.assert_array_equal(found.tokens[0, 0], [3, EOS, PAD, PAD])
        np.testing.assert_allclose(found.log_probs[0, 0], np.log(0.25), rtol=1e-5)


def test_pad_and_bos_keep_their_probability_but_never_come():
    tables_1MV = table_of({(): {PAD: 0.5, BOS: 0.3, EOS: 0.2}})
    for search in (greedy, partial(beam, width=2)):
        found = search(tables_1MV, np.array([1]), 0.0, name="gnmt")
        np.testing.assert_array_equal(found.tokens[0, 0], [EOS, PAD, PAD, PAD])
        np.testing.assert_allclose(found.log_probs[0, 0], np.log(0.2), rtol=1e-5)


@pytest.mark.parametrize(("alpha", "steps"), [(0.0, 2), (4.0, 3)])
def test_stops_when_nothing_live_can_win_and_not_before(alpha, steps):
    """Behind two positions 0.42 has finished and 0.28 lives: it can win if lengths count enough.

    With alpha = 4 it may, as long as log(0.28) / 4^4 > log(0.42) / 2^4; it does at the third, and
    then what still lives (0.003) has no hope.
    """
    taken = []

    def counting(tokens_BW, cache):
        jax.debug.callback(lambda index: taken.append(int(index)), cache.index)
        return step(tokens_BW, cache)

    tables_1MV = table_of(
        {(): {EOS: 0.3, 3: 0.7}, (3,): {EOS: 0.6, 4: 0.4}, (3, 4): {EOS: 0.99, 5: 0.01}}
    )
    found = beam_search(
        counting,
        empty_cache(jnp.asarray(tables_1MV), 2),
        pad=PAD,
        bos=BOS,
        eos=EOS,
        width=2,
        n_best=1,
        length=L,
        max_lengths_B=jnp.array([L]),
        penalty=length_penalty("power", alpha),
    )
    jax.effects_barrier()
    assert len(taken) == steps
    words = [3] if alpha == 0.0 else [3, 4]
    np.testing.assert_array_equal(found.tokens[0, 0, : len(words) + 1], [*words, EOS])


def test_a_live_hypothesis_may_win_at_any_length():
    """Whichever end of the lengths left is the more favourable one must not be overlooked."""
    long_1MV = table_of({(): {EOS: 0.6, 3: 0.4}, (3,): {4: 1.0}, (3, 4): {5: 1.0}})
    assert np.log(0.4) / 2**0.6 < np.log(0.6) < np.log(0.4) / 4**0.6
    found = beam(long_1MV, np.array([L]), 0.6, width=2, name="power", n_best=1)
    np.testing.assert_array_equal(found.tokens[0, 0], [3, 4, 5, EOS])
    short_1MV = table_of({(): {EOS: 0.3, 3: 0.7}})  # behind 3, EOS is certain
    assert np.log(0.7) * 4 < np.log(0.3) < np.log(0.7) * 2  # alpha = -1: length costs
    found = beam(short_1MV, np.array([L]), -1.0, width=2, name="power", n_best=1)
    np.testing.assert_array_equal(found.tokens[0, 0], [3, EOS, PAD, PAD])


def test_neighbours_change_nothing_bitwise():
    tables_BMV, limits_B = random_tables(7), np.array([4, 3, 4, 2, 4])
    alone = beam(tables_BMV, limits_B, 0.6, width=5, name="gnmt")
    others_BMV, others_B = random_tables(8), np.array([0, 1, 4, 4, 2])
    for b in range(B):
        mixed_BMV, mixed_B = others_BMV.copy(), others_B.copy()
        place = (b + 2) % B
        mixed_BMV[place], mixed_B[place] = tables_BMV[b], limits_B[b]
        mixed = beam(mixed_BMV, mixed_B, 0.6, width=5, name="gnmt")
        for field in dataclasses.fields(Hypotheses):
            ours, theirs = getattr(alone, field.name), getattr(mixed, field.name)
            np.testing.assert_array_equal(ours[b], theirs[place])


def test_an_unknown_penalty_is_refused():
    with pytest.raises(UserError, match=r"length_penalty is 'wu'; choose one of gnmt, power"):
        length_penalty("wu", 0.6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gnmt", [1.0, (7 / 6) ** 0.6, 2.0**0.6]), ("power", [1, 2**0.6, 7**0.6])],
)
def test_penalties_are_the_papers(name, expected):
    np.testing.assert_allclose(length_penalty(name, 0.6)(jnp.array([1, 2, 7])), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_the_best_next_tokens_are_those_of_the_whole_vocabulary(count):
    """A vocabulary of several parts, its last one short; many equal scores, the lowest ids win."""
    vocabulary, last_B = 6 * PART * count - 60, np.array([False, True, False])
    random = np.random.default_rng(0).normal(0, 2, (3, 2, vocabulary))
    logits_BWV = random.round().astype(np.float32)
    logits_BWV[..., [PAD, BOS]] = 10.0
    found_BWC, ids_BWC = jax.jit(partial(best_next, count=count, pad=PAD, bos=BOS, eos=EOS))(
        logits_BWV, last_B
    )
    ids_V = np.arange(vocabulary)
    may_come_BV = (ids_V > BOS) & ((ids_V == EOS) | ~last_B[:, None])
    log_probs_BWV = jnp.where(may_come_BV[:, None], jax.nn.log_softmax(logits_BWV), -jnp.inf)
    expected_BWC, expected_ids_BWC = jax.lax.top_k(log_probs_BWV, count)
    np.testing.assert_allclose(found_BWC, expected_BWC, rtol=1e-6)
    there = np.isfinite(found_BWC)
    np.testing.assert_array_equal(ids_BWC[there], expected_ids_BWC[there])
    assert there.sum() == 2 * (2 * count + 1)
