"""Canonically equal texts have equal ids, whatever they are spelled with."""

import itertools
import sys
import unicodedata
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transformer.data import Pair, Problem, SentencePieceTokenizer, open_store
from transformer.data.tokenizers import train

OPTIONS = {"kind": "bpe", "vocab_size": 307, "character_coverage": 1.0, "train_sentences": 1000}
OPTIONS |= {"split_scripts": True}
VIETNAMESE = (
    "Cậu và tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi."
)


def spellings(text: str) -> set[str]:
    """Some canonical equivalents: partly composed, and with marks in other orders."""
    parts = unicodedata.normalize("NFD", text)
    composed = unicodedata.normalize("NFC", text)
    halves = {
        unicodedata.normalize("NFC", parts[:cut]) + parts[cut:] for cut in range(len(parts) + 1)
    }
    base, marks = parts[:1], parts[1:]
    orders = {base + "".join(order) for order in itertools.permutations(marks)}
    return {s for s in halves | orders if unicodedata.normalize("NFC", s) == composed} | {text}


def test_every_spelling_of_every_character_has_the_same_ids(
    tokenizer: SentencePieceTokenizer,
) -> None:
    texts, counts = [], []
    for character in map(chr, range(sys.maxunicode)):
        if unicodedata.normalize("NFD", character) != character:
            spelled = sorted(spellings(character))
            texts += [f"a{text}" for text in spelled]
            counts.append(len(spelled))
    assert len(counts) > 13_000 and len(texts) > 30_000
    ids = iter(tokenizer.encode(texts))
    texts_left = iter(texts)
    for count in counts:
        different = {tuple(next(ids)) for _ in range(count)}
        spelled = [next(texts_left) for _ in range(count)]
        assert len(different) == 1, spelled


@given(
    st.text(st.sampled_from("aeoăôươsd đ각ㄱক\u0301\u0300\u0323\u0302\u031b\u09be\u3099が\u200b"))
)
def test_any_spelling_of_any_text_has_the_same_ids(
    tokenizer: SentencePieceTokenizer, text: str
) -> None:
    forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]
    ids = tokenizer.encode(forms)
    assert ids[0] == ids[1] == ids[2]
    assert (
        tokenizer.sample(forms, 0.5, np.zeros(3, int))[0]
        == tokenizer.sample(forms, 0.5, np.zeros(3, int))[2]
    )
    (back,) = tokenizer.decode(ids[:1])
    assert back == unicodedata.normalize("NFC", back)


def test_training_sees_composed_text(tmp_path: Path) -> None:
    """Also where marks are spelled in an order that a model's table does not hold."""
    models = []
    for number, dotted in enumerate(("ậ", "\u00e2\u0323")):
        text = VIETNAMESE.replace("ậ", dotted)
        train([Pair(text, text)] * 9, tmp_path / str(number), lowercase=False, **OPTIONS)
        models.append((tmp_path / str(number)).read_bytes())
    assert models[0] == models[1]


def test_lower_case_is_composed_too(tmp_path: Path) -> None:
    """J with a caron is two code points, and in lower case one."""
    train([Pair("la casa", "the house")] * 9, tmp_path / "m", lowercase=True, **OPTIONS)
    tokenizer = SentencePieceTokenizer.load(tmp_path / "m")
    texts = ["J\u030c", "J\u0323\u030c", "Ϊ\u0301", "H\u0331 T\u0308 É İ Σ"]
    lower = [unicodedata.normalize("NFC", text.replace("Σ", "σ").lower()) for text in texts]
    assert tokenizer.encode(texts) == tokenizer.encode(lower)
    assert tokenizer.decode(tokenizer.encode(texts)) == lower


def test_a_model_from_before_encodes_as_it_did(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    """Two spellings of a letter with two marks: the table that it has alone knows one of them."""
    from sentencepiece import sentencepiece_model_pb2

    model = tokenizer._processor.serialized_model_proto()
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # pyright: ignore
    assert proto.normalizer_spec.name == "nfc"
    proto.normalizer_spec.name = "user_defined"
    (tmp_path / "m").write_bytes(proto.SerializeToString())
    old = SentencePieceTokenizer.load(tmp_path / "m")
    spelled = ["â\u0323", "ậ", "la casa"]
    assert not old.composes and tokenizer.composes
    assert old.encode(spelled) == old._processor.encode(spelled)
    assert old.encode(spelled)[0] != old.encode(spelled)[1]
    assert tokenizer.encode(spelled)[0] == tokenizer.encode(spelled)[1] == old.encode(spelled)[1]
    assert tokenizer.encode(spelled)[2] == old.encode(spelled)[2]


def test_a_pair_spelled_otherwise_is_a_duplicate(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    old_keyboard = "c\u0061\u0302\u0323u", "cậu"  # the marks in another order
    pairs = [Pair("x", text) for text in (*old_keyboard, "cau")]
    store = open_store(tmp_path, lambda: iter(pairs), tokenizer, key="k")
    assert store.digests[0] == store.digests[1] != store.digests[2]
    assert (store.problems == [0, Problem.DUPLICATES, 0]).all()
