"""The way from sentences to translations and back, with a model that is known to the last bit."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.prefix_cache import PrefixCache
from transformer.batch import BOS, EOS, PAD
from transformer.config import DecodingConfig
from transformer.decoding import (
    BadLines,
    Form,
    InputShapes,
    Translation,
    Translator,
    translate_lines,
)
from transformer.decoding.input_shapes import bucket_lengths
from transformer.errors import UserError
from transformer.models.seq2seq import Memory, Seq2Seq
from transformer.sharding import Layout
from transformer.streams import BadLine

FIRST = 4  # the id of "a"
V = FIRST + 27
LENGTH = 12
NO_CONFIG: Any = None


class Letters:
    """A tokenizer: one id a letter."""

    def encode(self, texts):
        return [[FIRST + ord(letter) - ord("a") for letter in text] for text in texts]

    def decode(self, ids):
        return ["".join(chr(ord("a") + i - FIRST) for i in row) for row in ids]


class Successor(Seq2Seq):
    """Writes the source with every letter replaced by the next one, and ends where it ends.

    Its second choice is always the letter after the next one. `params["scale"]` times the logits.
    """

    def encode(self, source: Any):
        return Memory(source.ids.astype(jnp.float32)[..., None], source.positions, source.segments)

    def init_cache(self, memory, length, beams):
        batch = memory.hidden.shape[0]
        written = jnp.zeros((batch, beams, length), jnp.int32)
        ids_BS = memory.hidden[..., 0].astype(jnp.int32)
        return PrefixCache(jnp.int32(0), memory.segments, ids_BS, written)

    def step(self, tokens, cache: Any):
        source_length = cache.source.shape[1]
        here = jnp.minimum(cache.index, source_length - 1)
        ids_B1 = jax.lax.dynamic_slice_in_dim(cache.source, here, 1, axis=1)
        written = cache.prefix.at[..., cache.index].set(tokens)
        hidden_BWD = jnp.broadcast_to(ids_B1, tokens.shape).astype(jnp.float32)[..., None]
        return hidden_BWD, cache.replace(index=cache.index + 1, prefix=written)

    def logits(self, hidden):
        scale = self.variables["params"]["scale"]
        ids = hidden[..., 0].astype(jnp.int32)
        best = jax.nn.one_hot(jnp.where(ids >= FIRST, ids + 1, EOS), V)
        second = jax.nn.one_hot(jnp.where(ids >= FIRST, ids + 2, -1), V)  # of -1: nothing
        return (5.0 * best + 3.0 * second) * scale


DECODING = DecodingConfig(beam=1, extra_length=5, tokens_per_batch=64)
SHAPES = InputShapes(max_length=LENGTH, row_multiple=2, length_multiple=4)


class Recording(Layout):
    """One device, and the shapes of sources that were compiled."""

    compiled: list[tuple[int, int]]

    def jit(self, function, **options):
        def traced(params, source):
            self.compiled.append(source.ids.shape)
            return function(params, source)

        return super().jit(traced, **options)


def recording():
    layout = Recording.single()
    layout.compiled = []
    return layout


def translator(kind=Successor, letters=None, layout=None, scale=1.0, **changes):
    """A translator of made-up models; `changes` to DECODING and SHAPES by key."""
    of_shapes = {key: changes.pop(key) for key in [*changes] if hasattr(SHAPES, key)}
    return Translator(
        kind(NO_CONFIG),
        {"scale": jnp.float32(scale)},
        letters or Letters(),
        dataclasses.replace(DECODING, **changes),
        shapes=dataclasses.replace(SHAPES, **of_shapes),
        layout=layout,
    )


def texts(found):
    return [[translation.text for translation in line] for line in found]


def successor(text):
    return "".join(chr(ord(letter) + 1) for letter in text)


def random_sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwx"))
    return ["".join(rng.choice(letters, rng.integers(1, LENGTH))) for _ in range(count)]


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_come_in_the_order_of_the_sentences(beam):
    layout = recording()
    sentences = random_sentences(101)
    found = translator(beam=beam, layout=layout).translate(sentences)
    assert texts(found) == [[successor(sentence)] for sentence in sentences]
    assert len(layout.compiled) == len({length for _, length in layout.compiled}) <= 3


def test_every_shape_keeps_the_budget_and_the_multiples():
    layout = recording()
    translate = translator(layout=layout, row_multiple=3, tokens_per_batch=70).translate
    for count in (2, 7, 37):
        translate(random_sentences(count, seed=count))
    assert len(layout.compiled) > 2
    for rows, length in layout.compiled:
        assert rows % 3 == 0 and length % 4 == 0 and rows * length <= 70
    layout.compiled.clear()
    translator(layout=layout, row_multiple=5, tokens_per_batch=70).translate(["a" * (LENGTH - 1)])
    assert layout.compiled == [(5, LENGTH)]  # no fewer rows, whatever the budget


def test_few_sentences_make_a_small_batch():
    layout = recording()
    translate = translator(layout=layout).translate
    assert texts(translate(["abc"])) == [["bcd"]]
    assert texts(translate(["b", "xyx"])) == [["c"], ["yzy"]]
    assert layout.compiled == [(2, LENGTH)], "one shape for all that are few"


def test_n_best_translations_are_sorted_and_add_up():
    ((first, second, third),) = translator(beam=3, n_best=3).translate(["ab"])
    assert first.text == "bc" and {second.text, third.text} == {"bd", "cc"}
    assert first.tokens == (FIRST + 1, FIRST + 2)
    assert first.score > second.score >= third.score
    mass = np.log(np.exp(5.0) + np.exp(3.0) + V - 2)
    end = 5.0 - np.log(np.exp(5.0) + V - 1)  # behind the source's end the second choice is none
    np.testing.assert_allclose(first.log_prob, 2 * (5.0 - mass) + end, rtol=1e-5)
    np.testing.assert_allclose(second.log_prob, (8.0 - 2 * mass) + end, rtol=1e-5)
    np.testing.assert_allclose(first.score, first.log_prob / (8 / 6) ** 0.6, rtol=1e-5)


def test_empty_lines_stay_empty_and_do_not_touch_the_model():
    layout = recording()
    translate = translator(layout=layout).translate
    assert translate([]) == []
    assert texts(translate(["", "  ", "\t"])) == [[""], [""], [""]]
    assert layout.compiled == []
    assert texts(translate(["", "abc", " ", " de "])) == [[""], ["bcd"], [""], ["ef"]]


def test_a_sentence_that_is_too_long_is_refused_by_its_line():
    translate = translator().translate
    longest = "a" * (LENGTH - 1)
    assert texts(translate([longest])) == [["b" * (LENGTH - 1)]]
    with pytest.raises(UserError, match=r"line 3 has 13 tokens, </s> included.*takes 12: split"):
        translate(["a", "b", longest + "a"])
    with pytest.raises(UserError, match=r"line 1003 has 13 tokens"):
        translate(["a", "b", longest + "a"], first_line=1001)


def test_a_bad_line_costs_only_itself():
    """What is too long or was no text, among good ones; `translate` itself goes on raising."""
    long, lines = "a" * LENGTH, ["ab", BadLine("is not UTF-8 text"), "a" * LENGTH, "", "cd"]
    good, first, second, empty, last = translator().translate_each(lines)
    assert texts([good, empty, last]) == [["bc"], [""], ["de"]]
    assert first is lines[1] and second.why.startswith("has 13 tokens, </s> included")
    assert translator().translate_each([long])[0].why.startswith("has 13 tokens")


def test_scores_that_are_no_numbers_cost_their_own_line_and_say_whose_fault_it_is():
    class Poisoned(Successor):
        def logits(self, hidden):
            return jnp.where(hidden == FIRST + 25.0, jnp.nan, super().logits(hidden))  # of "z"

    poisoned = translator(Poisoned)
    form, bad = Form("plain", False, 1, lambda sentence, text: text), BadLines()
    chunks: Any = [(1, ["ab", "z"]), (3, ["c"])]
    assert [*translate_lines(poisoned, chunks, form, bad)] == ["bc\n\n", "d\n"]
    assert bad.of_the_model and "line 2 has no translation: the model's scores" in str(bad)


@pytest.mark.parametrize(
    ("name", "scores", "expected"),
    [
        ("plain", False, ["bc", "bd", "", ""]),
        ("plain", True, ["-1.0000\tbc", "-2.5000\tbd", "-inf\t", "-inf\t"]),
        ("indexed", False, ["7\t1\tbc", "7\t2\tbd", "8\t1\t", "8\t2\t"]),
        (
            "indexed",
            True,
            ["7\t1\t-1.0000\tbc", "7\t2\t-2.5000\tbd", "8\t1\t-inf\t", "8\t2\t-inf\t"],
        ),
        (
            "moses",
            False,
            ["6 ||| bc ||| -1.0000", "6 ||| bd ||| -2.5000", *["7 |||  ||| -inf"] * 2],
        ),
    ],
)
def test_every_line_of_output_has_the_same_columns(name, scores, expected):
    form = Form(name, scores, 2, lambda sentence, text: text)
    two = [Translation(text, score, score, ()) for text, score in (("bc", -1.0), ("bd", -2.5))]
    assert form.lines(7, "ab", two) + form.lines(8, BadLine("x"), BadLine("x")) == expected
    (line,) = Form("moses", False, 1, lambda *_: "a ||| b").lines(1, "ab", two[:1])
    assert line.split(" ||| ") == ["0", "a &#124;&#124;&#124; b", "-1.0000"]


def test_many_bad_lines_are_counted():
    bad = BadLines()
    for number in (3, 1_004, 1_005, 1_006, 1_007, 1_008, 1_009):
        bad.note(number, BadLine("is not UTF-8 text"))
    told = str(bad)
    assert told.startswith("7 lines have no translation") and told.endswith("; and 2 more")
    assert "line 3 is not UTF-8 text; line 1,004 is" in told and "1,008" not in told


def test_output_has_at_most_the_source_and_the_extra_length():
    class Endless(Successor):
        def logits(self, hidden):
            return 9.0 * jax.nn.one_hot(jnp.full(hidden.shape[:-1], FIRST), V)

    for beam in (1, 3):
        endless = translator(Endless, beam=beam)
        found = endless.translate(["z", "zz", "z" * 9])
        assert texts(found) == [["a" * 6], ["a" * 7], ["a" * 14]]  # and </s>
        capped = translator(Endless, beam=beam, max_output_length=8)
        assert texts(capped.translate(["z", "zz", "z" * 9])) == [["a" * 6], ["a" * 7], ["a" * 7]]


def test_a_translation_is_one_line():
    class Breaks(Letters):
        def decode(self, ids):
            return [text.replace("c", "\n") for text in super().decode(ids)]

    broken = translator(letters=Breaks())
    assert texts(broken.translate(["abc"])) == [["b d"]]


def test_parameters_can_be_replaced_without_compiling_again():
    layout = recording()
    subject = translator(layout=layout)
    ((before,),) = subject.translate(["abc"])
    subject.params = {"scale": jnp.float32(2.0)}
    ((after,),) = subject.translate(["abc"])
    assert after.text == before.text and after.score > before.score
    assert len(layout.compiled) == 1


def test_scores_that_are_no_numbers_are_an_error():
    for beam in (1, 3):
        subject = translator(beam=beam)
        subject.params = {"scale": jnp.float32(jnp.nan)}
        with pytest.raises(UserError, match=r"line 2 has no translation.*earlier checkpoint"):
            subject.translate(["", "ab"])


def test_values_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="n_best is 4 but a beam of 3"):
        translator(beam=3, n_best=4)
    with pytest.raises(UserError, match=re.escape("choose one of gnmt, power")):
        translator(length_penalty="none")


def test_batches_are_placed_before_the_search():
    placed = []

    class Placing(Layout):
        def place(self, tree, rows=None):
            placed.append(tree)
            return super().place(tree, rows)

    translator(layout=Placing.single()).translate(["abc"])
    (source,) = placed
    a = FIRST
    np.testing.assert_array_equal(source.ids, [[a, a + 1, a + 2, EOS, *[PAD] * 8], [PAD] * 12])
    np.testing.assert_array_equal(source.positions, [[0, 1, 2, 3, *[0] * 8], [0] * 12])
    np.testing.assert_array_equal(source.segments, [[1] * 4 + [0] * 8, [0] * 12])
    assert BOS not in source.ids


@pytest.mark.parametrize(
    ("most", "multiple", "expected"),
    [(100, 8, [8, 16, 24, 32, 48, 72, 104]), (7, 1, [1, 2, 3, 4, 6, 7]), (5, 8, [8])],
)
def test_buckets_are_few_and_take_the_longest(most, multiple, expected):
    assert bucket_lengths(most, multiple) == expected
