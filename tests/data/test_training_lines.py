"""SentencePiece's trainer sees all of the text."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data import Pair, SentencePieceTokenizer
from transformer.data import training_lines as module
from transformer.data.tokenizers import train
from transformer.data.training_lines import LONGEST, cut, training_lines
from transformer.errors import UserError

OPTIONS = {"kind": "bpe", "character_coverage": 1.0, "train_sentences": 1000}
OPTIONS |= {"lowercase": False, "split_scripts": True}
FAMILY = "👨\u200d👩\u200d👧\u200d👦"


def pieces(pairs: list[Pair], path: Path, **options: object) -> set[str]:
    train(pairs, path, **{**OPTIONS, "vocab_size": 400, **options})
    tokenizer = SentencePieceTokenizer.load(path)
    return set(tokenizer.pieces(range(tokenizer.size)))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_letters_that_the_trainer_would_skip_have_pieces(tmp_path: Path, kind: str) -> None:
    pairs = [
        Pair("la casa roja " * 400 + "ж", "ф" + "日本" * 3000 + "щ"),
        Pair("▁▂▃▄▅▆ ы", "э▅ю"),  # U+2585 is its own
        Pair("la casa", "the house"),
    ]
    assert {*"жфщыэю日本▃▆"} <= pieces(pairs, tmp_path / "m", kind=kind)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_letters_beside_what_spells_a_special_piece_have_pieces(tmp_path: Path, kind: str) -> None:
    lines = ["<s> ж", "x </s> ф", "<pad>щ", "<unk> ю", "<0x41> э", "la casa", "the house", "a"]
    pairs = [Pair(line, "la casa roja") for line in lines]
    assert {*"жфщюэ<>/04"} <= pieces(pairs, tmp_path / "m", kind=kind)


@pytest.mark.parametrize("text", ["\u200b", "\u2585", "\x01 \u2585", " "])
def test_a_text_of_nothing_that_is_kept_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="no text but spaces and control characters"):
        pieces([Pair(text, text)], tmp_path / "m")


def test_a_text_of_long_lines_alone_is_trained_on(tmp_path: Path) -> None:
    pairs = [Pair("a bird draws the moon " * 250, "x" * 9000)] * 3
    assert {"b", "x", "w"} <= pieces(pairs, tmp_path / "m")


@pytest.mark.skipif("LARGE_TEXT" not in os.environ, reason="minutes: by hand")
def test_the_rarest_letter_of_a_large_text_has_a_piece(tmp_path: Path) -> None:
    line = "ab " * 1300
    pairs = [Pair(line, line)] * 5_000 + [Pair("ω ab", "ab")]
    found = pieces(pairs, tmp_path / "m", train_sentences=10_000)
    assert "ω" in found


def test_that_letters_are_asked_for_leaves_the_model_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [Pair("la casa roja ñ é", "the red house ½ ™")] * 9
    pieces(pairs, tmp_path / "few")
    monkeypatch.setattr("transformer.data.tokenizers.MANY", 10)
    pieces(pairs, tmp_path / "many")
    assert (tmp_path / "few").read_bytes() == (tmp_path / "many").read_bytes()


def test_short_lines_are_left_as_they_are() -> None:
    texts = ["", "la casa", "日" * (LONGEST // 3), "x" * LONGEST, " a  b "]
    assert list(training_lines(texts)) == texts


@given(
    st.lists(
        st.sampled_from(["a", " ", "é", "日", "e\u0301", FAMILY, "🇪🇸", "👍🏽", "\t"]), max_size=60
    ).map("".join)
)
def test_nothing_but_spaces_is_lost_and_no_character_is_cut(text: str) -> None:
    longest, module.LONGEST = module.LONGEST, 30
    try:
        parts = list(training_lines([text]))
    finally:
        module.LONGEST = longest
    assert all(len(part.encode()) <= 30 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    for part in parts[1:]:
        assert part[:1] not in ("\u0301", "\u200d", "🏽")


def test_a_character_longer_than_a_line_is_cut() -> None:
    parts = list(cut("e" + "\u0301" * 5000 + " b"))
    assert len(parts) == 3 and parts[-1].endswith("b")
    assert all(len(part.encode()) <= LONGEST for part in parts)
