"""No input gives a traceback: text, tokenizer and configuration under random ones.

The batch plan's own are in tests/data/test_batching.py.
"""

import copy
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import base
from transformer.config import Config, from_dict
from transformer.config.experiment_files import load_config
from transformer.data import Pair, Problem, SentencePieceTokenizer, Text
from transformer.data.tokenizers import train
from transformer.errors import UserError

LINES = st.lists(
    st.one_of(
        st.binary(max_size=9),
        st.text(max_size=5).map(str.encode),
        st.sampled_from([b"\r", b"\n\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x00", b"ok ok"]),
    ),
    max_size=7,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> SentencePieceTokenizer:
    options = {"kind": "bpe", "vocab_size": 290, "character_coverage": 1.0, "lowercase": False}
    options["split_scripts"] = True
    pairs = [Pair("la casa roja", "the red house"), Pair("el perro", "the dog")] * 20
    train(pairs, folder / "tokenizer.model", train_sentences=40, **options)
    return SentencePieceTokenizer.load(folder / "tokenizer.model")


def one_line(error: UserError) -> bool:
    text = str(error)
    return bool(text) and "\n" not in text


@settings(max_examples=150)
@given(source=LINES, target=LINES, packed=st.booleans(), whole=st.booleans())
def test_files_of_any_bytes_are_a_pair_a_line_or_one_error(folder, source, target, packed, whole):
    contents = [b"\n".join(lines) for lines in (source, target)]
    paths = [folder / f"{name}{'.gz' * packed}" for name in "ab"]
    for path, content in zip(paths, contents, strict=True):
        written = gzip.compress(content) if packed else content
        path.write_bytes(written if whole else written[: len(written) // 2])
    corpus = Text(str(paths[0]), str(paths[1]), "", "", "", "")
    try:
        pairs = list(corpus.pairs("train"))
    except UserError as error:
        assert one_line(error)
        return
    if whole or not packed:
        counts = [
            path.read_bytes() if not packed else gzip.decompress(path.read_bytes())
            for path in paths
        ]
        lines = [
            len(content.split(b"\n")) - (not content or content.endswith(b"\n"))
            for content in counts
        ]
        assert lines == [len(pairs)] * 2
    for pair in pairs:
        assert all("\n" not in side and side.encode() is not None for side in pair[:2])
        has_none = not all(side.strip() for side in pair[:2])
        assert bool(pair.problems & Problem.EMPTY) == has_none


@settings(max_examples=200)
@given(text=st.text(max_size=40))
def test_any_text_comes_back_as_its_normal_form(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    (back,) = tokenizer.decode([ids])
    assert all(3 < i < tokenizer.size for i in ids)
    assert back == back.strip() and "  " not in back
    assert tokenizer.encode([back]) == [ids]
    (sampled,) = tokenizer.sample([text], 0.5, np.array([7]))
    assert tokenizer.decode([sampled]) == [back]


ANY: Any = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-3, 9),
        st.floats(),
        st.text(max_size=4),
        st.sampled_from(
            ["bpe", "packed", "mixture", "text", "auto", "tfds", "casa_roja", "recall", "treebank"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["source", "rate", "text", "a", "heads"]), inner, max_size=3
        ),
    ),
    max_leaves=5,
)
TREE = base.get_config("smoke").to_dict()


def paths(tree: dict, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Of every key, sections included."""
    found = []
    for key, value in tree.items():
        found.append((*at, key))
        if isinstance(value, dict):
            found += paths(value, (*at, key))
    return found


PATHS = paths(TREE)


@settings(max_examples=400)
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), ANY), min_size=1, max_size=3))
def test_any_values_are_a_configuration_or_one_error(changes):
    tree = copy.deepcopy(TREE)
    for path, value in changes:
        section: Any = tree
        for key in path[:-1]:
            section = section[key] if isinstance(section, dict) and key in section else {}
        if isinstance(section, dict):
            section[path[-1]] = value
    try:
        config = from_dict(tree)
        assert isinstance(config, Config)
        assert from_dict(config.as_dict()).digest() == config.digest()
    except UserError as error:
        assert one_line(error)


@settings(max_examples=60)
@given(
    overrides=st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from([".".join(path) for path in PATHS]),
                st.one_of(
                    st.text(max_size=6),
                    st.integers().map(str),
                    st.sampled_from(["true", "()", "1e9"]),
                ),
            ).map(lambda both: f"--config.{both[0]}={both[1]}"),
            st.text(max_size=12),
            st.text(max_size=8).map(lambda text: f"--config.{text}=1"),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_any_overrides_are_a_configuration_or_one_error(overrides):
    try:
        assert isinstance(load_config(f"{base.__file__}:smoke", overrides), Config)
    except UserError as error:
        assert one_line(error)


PARTS = st.dictionaries(
    st.text(max_size=3),
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["text", "casa_roja", "recall", "mixture", ""]),
            "rate": st.floats(),
        },
        optional={
            "casa_roja": st.just({"train_size": 5, "dev_size": 2, "test_size": 2}),
            "recall": st.just(TREE["data"]["recall"]),
            "text": ANY,
            "x": ANY,
        },
    ),
    max_size=3,
)


@settings(max_examples=100)
@given(parts=PARTS)
def test_any_mixture_is_a_configuration_or_one_error(parts):
    tree = copy.deepcopy(TREE)
    tree["data"] |= {"source": "mixture", "mixture": parts}
    try:
        config = from_dict(tree)
        assert list(config.data.mixture) == sorted(parts)
        assert from_dict(config.as_dict()) == config
    except UserError as error:
        assert one_line(error)
