"""A small corpus of invented words, its tokenizer and its store: 211 pairs of uneven lengths."""

import random

import pytest

from transformer.data import Pair, SentencePieceTokenizer, open_store
from transformer.data.tokenizers import train

WORDS = ["casa", "rojo", "grande", "perro", "gato", "ve", "come", "una", "el", "la", "house", "red"]
WORDS += ["big", "dog", "cat", "sees", "eats", "a", "the"]


@pytest.fixture(scope="session")
def sentence_pairs():
    draw = random.Random(7)

    def sentence(longest):
        return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))

    return [Pair(sentence(11), sentence(17)) for _ in range(211)]


@pytest.fixture(scope="session")
def tokenizer(sentence_pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train(
        sentence_pairs,
        path,
        kind="bpe",
        vocab_size=317,
        character_coverage=1.0,
        lowercase=False,
        train_sentences=211,
        split_scripts=True,
    )
    return SentencePieceTokenizer.load(path)


@pytest.fixture(scope="session")
def store(sentence_pairs, tokenizer, tmp_path_factory):
    return open_store(
        tmp_path_factory.mktemp("cache"), lambda: iter(sentence_pairs), tokenizer, key="fixture"
    )
