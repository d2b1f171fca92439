import gzip
import os
from typing import Any

import pytest

from transformer.data import Pair, Problem
from transformer.data.lines import read_lines
from transformer.data.passages import Files
from transformer.data.sources import SOURCES, CasaRoja, Mixture, Text, Treebank
from transformer.errors import UserError


def text(folder, source, target, suffix=""):
    """A corpus whose training split is these bytes."""
    for name, content in (("a", source), ("b", target)):
        write = gzip.compress(content) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(write)
    paths = str(folder / f"a{suffix}"), str(folder / f"b{suffix}")
    return Text(*paths, "", "", "", "")


def refusal(corpus, split="train"):
    with pytest.raises(UserError) as caught:
        list(corpus.pairs(split))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_end_only_where_files_say_so(tmp_path, suffix):
    # U+2028, vertical tab, form feed and a lone \r belong to the sentence; a BOM does not.
    source = "\ufeffuno\r\ndos\u2028tres\ncuatro\vcinco\fseis\rsiete".encode()
    corpus = text(tmp_path, source, b"one\ntwo\nthree\n", suffix=suffix)
    assert list(corpus.pairs("train")) == [
        Pair("uno", "one"),
        Pair("dos\u2028tres", "two"),
        Pair("cuatro\vcinco\fseis\rsiete", "three", Problem.CONTROL_CHARACTERS),
    ]


def test_splits_are_named_by_files(tmp_path):
    corpus = text(tmp_path, b"a\n", b"b\n")
    assert corpus.has("train") and not corpus.has("dev")
    assert "data.text.dev_source" in refusal(corpus, "dev")


def test_one_side_of_a_split_is_refused():
    with pytest.raises(UserError, match=r"dev_source is x but data\.text\.dev_target is empty"):
        Text("", "", "x", "", "", "")


@pytest.mark.parametrize("longer", [0, 1])
def test_different_lengths_are_refused(tmp_path, longer):
    sides: Any = [b"x\n" * 5, b"x\n" * 5]
    sides[longer] += b"x\n" * 2
    message = refusal(text(tmp_path, sides[0], sides[1]))
    counts = (7, 5) if longer == 0 else (5, 7)
    assert f"{tmp_path}/a has {counts[0]} lines but {tmp_path}/b has {counts[1]}" in message


@pytest.mark.parametrize(
    ("bad", "text_of_it", "problems"),
    [
        (b"caf\xe9", "caf\ufffd", Problem.NOT_UTF8),
        (b"\xff", "\ufffd", Problem.NOT_UTF8),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd", Problem.NOT_UTF8),  # half of a surrogate pair
        (b" \t", " \t", Problem.EMPTY),
        (b"", "", Problem.EMPTY),
        (b"a\x00b", "a\0b", Problem.CONTROL_CHARACTERS),
        ("a\x85".encode(), "a\x85", Problem.CONTROL_CHARACTERS),
        (b"\x1b[0m\xfe", "\x1b[0m\ufffd", Problem.CONTROL_CHARACTERS | Problem.NOT_UTF8),
        (b"a\tb", "a\tb", Problem(0)),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_no_line_is_refused_or_lost(tmp_path, bad, text_of_it, problems, side):
    sides: Any = [b"x\nx\nx\n", b"x\nx\nx\n"]
    sides[side] = b"x\n" + bad + b"\nx\n"
    good = Pair("x", "x")
    expected = ("x", text_of_it) if side else (text_of_it, "x")
    assert list(text(tmp_path, *sides).pairs("train")) == [good, Pair(*expected, problems), good]


def test_files_without_pairs_are_refused(tmp_path):
    assert "no sentence pairs" in refusal(text(tmp_path, b"", b""))


def test_a_missing_file_is_refused(tmp_path):
    corpus = text(tmp_path, b"x\n", b"x\n")
    (tmp_path / "b").unlink()
    assert refusal(corpus).startswith(f"{tmp_path}/b: No such file")
    with pytest.raises(UserError, match="No such file"):
        corpus.fingerprint("train")


def test_a_damaged_gzip_file_is_refused(tmp_path):
    corpus = text(tmp_path, b"x\n" * 999, b"x\n" * 999, suffix=".gz")
    whole = (tmp_path / "b.gz").read_bytes()
    (tmp_path / "b.gz").write_bytes(whole[: len(whole) // 2])
    assert refusal(corpus).startswith(f"{tmp_path}/b.gz: not a whole gzip file")
    (tmp_path / "b.gz").write_bytes(whole + b"behind it")
    assert refusal(corpus).startswith(f"{tmp_path}/b.gz: not a whole gzip file")


def test_a_fingerprint_changes_with_the_content(tmp_path):
    corpus = text(tmp_path, b"x\ny\n", b"z\n\n")
    first = corpus.fingerprint("train")
    assert first == text(tmp_path, b"x\ny\n", b"z\n\n").fingerprint("train")
    assert first != text(tmp_path, b"z\n\n", b"x\ny\n").fingerprint("train")
    assert first != text(tmp_path, b"x\ny\n", b"w\n\n").fingerprint("train")


def test_casa_roja_has_the_sizes_asked_for():
    corpus = CasaRoja(train_size=13, dev_size=5, test_size=7)
    assert [len(list(corpus.pairs(split))) for split in ("train", "dev", "test")] == [13, 5, 7]
    assert corpus.fingerprint("dev") != CasaRoja(13, 6, 7).fingerprint("dev")
    alike = CasaRoja(5, 5, 5)
    assert len({alike.fingerprint(split) for split in ("train", "dev", "test")}) == 3


def part(folder, name, train=b"", dev=b""):
    paths = [
        folder / f"{name}.{split}" if content else ""
        for split, content in (("t", train), ("d", dev))
    ]
    for path, content in zip(paths, (train, dev), strict=True):
        if path:
            path.write_bytes(content)
    train_path, dev_path = map(str, paths)
    return Text(train_path, train_path, dev_path, dev_path, "", "")


def test_a_mixture_is_its_parts_one_after_another(tmp_path):
    parts = {
        "a": part(tmp_path, "a", dev=b"d\n"),
        "b": part(tmp_path, "b", b"1\n2\n"),
        "c": part(tmp_path, "c", b"3\n\n", b"e\n"),
    }
    corpus = Mixture(parts)
    pairs = list(corpus.pairs("train"))
    assert [(pair.source, pair.part) for pair in pairs] == [("1", 0), ("2", 0), ("3", 1), ("", 1)]
    assert pairs[3].problems == Problem.EMPTY
    assert list(corpus.pairs("dev")) == [Pair("d", "d")]
    assert list(corpus.origins("train")) == ["b", "c"]
    assert list(corpus.origins("dev")) == ["a"] and "a.d" in corpus.origins("dev")["a"]
    assert corpus.has("dev") and not corpus.has("test")
    with pytest.raises(UserError, match=r"no part of data\.mixture has a test split"):
        list(corpus.pairs("test"))
    other = Mixture({**parts, "c": part(tmp_path, "other", b"3\n4\n")})
    assert corpus.fingerprint("train") != other.fingerprint("train")
    assert corpus.fingerprint("dev") == other.fingerprint("dev")


def test_every_source_answers_the_interface():
    for source in SOURCES.values():
        assert all(hasattr(source, name) for name in ("has", "pairs", "fingerprint", "origins"))


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_is_unpacked_by_its_bytes_and_not_by_its_name(tmp_path, packed):
    """Equal bytes are equal text under any name."""
    content = gzip.compress(b"uno\n") if packed else b"uno\n"
    for name in ("a", "a.gz", "a.txt"):
        (tmp_path / name).write_bytes(content)
        assert list(read_lines(str(tmp_path / name), "data.text")) == [b"uno"]


def replace(path):
    """Gives the name to another file."""
    path.with_name("new").write_bytes(b"Two\n" * 2_000)
    path.with_name("new").replace(path)


CHANGES = {
    "written over": lambda path: path.write_bytes(b"Two\n" * 2_000),
    "replaced": replace,
    "grown": lambda path: path.write_bytes(b"two\n" * 2_001),
    "cut": lambda path: path.write_bytes(b"two\n"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("back", [True, False])
def test_a_text_that_changes_before_it_is_read_is_kept_nowhere(tmp_path, change, back):
    """Neither tokenizer nor store is made of it, though it has its old content again afterwards."""
    path, good = tmp_path / "b", b"two\n" * 2_000
    corpus = text(tmp_path, b"uno\n" * 2_000, good)
    before = corpus.fingerprint("train")
    CHANGES[change](path)
    with pytest.raises(UserError, match=r"/b changed while it was read|has 2000 lines but"):
        for number, _ in enumerate(corpus.pairs("train")):
            if number == 1_998 and back:
                path.write_bytes(good)
    path.write_bytes(good)
    assert corpus.fingerprint("train") == before
    assert len(list(corpus.pairs("train"))) == 2_000


def test_trees_and_passages_that_change_are_refused_too(tmp_path):
    trees = tmp_path / "a.mrg"
    trees.write_text("(S (NN a))\n", encoding="utf-8")
    bank = Treebank(str(trees), "", "")
    bank.fingerprint("train")
    trees.write_text("(S (NN b))\n", encoding="utf-8")
    with pytest.raises(UserError, match="changed while it was read"):
        list(bank.pairs("train"))
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"{number}\n" * 9, encoding="utf-8")
    files = Files((f"{tmp_path}/*.txt",), 4, 1, 0.0, 9, 9)
    files.fingerprint("train")
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("another\n" * 9, encoding="utf-8")
    with pytest.raises(UserError, match="changed while it was read"):
        list(files.pairs("train"))


def test_a_file_that_comes_after_the_fingerprint_is_not_read(tmp_path):
    (tmp_path / "a.mrg").write_text("(S (NN a))\n", encoding="utf-8")
    bank = Treebank(f"{tmp_path}/*.mrg", "", "")
    before = bank.fingerprint("train")
    (tmp_path / "b.mrg").write_text("(S (NN b))\n", encoding="utf-8")
    assert [pair.source for pair in bank.pairs("train")] == ["a"]
    assert bank.fingerprint("train") == before != Treebank(*bank_keys(bank)).fingerprint("train")


def bank_keys(bank):
    return bank.train, bank.dev, bank.test


@pytest.mark.parametrize("how", ["read", "fingerprinted"])
def test_a_pipe_is_refused_at_once(tmp_path, how):
    """Nobody writes into it: who opened it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    corpus = Text(*[str(tmp_path / "pipe")] * 2, *[""] * 4)
    with pytest.raises(UserError, match="pipe is no regular file"):
        corpus.fingerprint("train") if how == "fingerprinted" else list(corpus.pairs("train"))


def both(folder, content, **keys):
    """A corpus whose training split is one file of both sides."""
    (folder / "both").write_bytes(content)
    return Text(train=str(folder / "both"), **keys)


TSV = "hola\thello\nadiós\tbye\n\nsí\tyes\tmore\n".encode()
JSON = b"""{"en": "hello", "t": {"es": "hola", "n": 3}}

{"t": {"es": "caf\xe9"}, "en": "coffee"}\r
{"t": {"es": "\\ud800 x\\ny"}, "en": "half"}
"""


@pytest.mark.parametrize(
    ("content", "keys", "pairs"),
    [
        (TSV, {}, ["hola-hello", "adiós-bye", "-", "sí-yes"]),
        (gzip.compress(TSV), {}, ["hola-hello", "adiós-bye", "-", "sí-yes"]),
        (
            TSV,
            {"source_field": "2", "target_field": "1"},
            ["hello-hola", "bye-adiós", "-", "yes-sí"],
        ),
        (b"id\ten\tes\n7\ta\tb\n", {"source_field": "es", "target_field": "en"}, ["b-a"]),
        (b"id\ten\tes\n7\ta\tb\n", {"source_field": "1", "target_field": "es"}, ["7-b"]),
    ],
    ids=["columns", "gzip", "turned", "names", "mixed"],
)
def test_columns_of_one_file(tmp_path, content, keys, pairs):
    corpus = both(tmp_path, content, **keys)
    assert [f"{pair.source}-{pair.target}" for pair in corpus.pairs("train")] == pairs


def test_json_lines_by_key(tmp_path):
    corpus = both(tmp_path, JSON, format="jsonl", source_field="t.es", target_field="en")
    assert list(corpus.pairs("train")) == [
        Pair("hola", "hello"),
        Pair("", "", Problem.EMPTY),
        Pair("caf\ufffd", "coffee", Problem.NOT_UTF8),
        Pair("\ufffd\ufffd\ufffd x\ny", "half", Problem.NOT_UTF8 | Problem.CONTROL_CHARACTERS),
    ]
    dotted = both(
        tmp_path,
        b'{"t.es": "x", "t": {"es": "y"}, "en": "z"}',
        format="jsonl",
        source_field="t.es",
        target_field="en",
    )
    assert [pair.source for pair in dotted.pairs("train")] == ["x"]
    other = both(tmp_path, JSON, format="jsonl", source_field="en", target_field="t.es")
    assert other.fingerprint("train") != corpus.fingerprint("train")


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        (b"a\tb\nc\n", {}, "line 2 has one column, and no column 2"),
        (b"a\tb\n", {"target_field": "3"}, "line 1 has 2 columns, and no column 3"),
        (b"a\tb\n", {"target_field": "en"}, "line 1 has no column 'en'; it has 'a', 'b'"),
        (
            b"en\ten\tes\n",
            {"source_field": "en", "target_field": "es"},
            "line 1 has several columns 'en'; give a number",
        ),
        (b"{", {"format": "jsonl"}, "line 1 is no JSON (Expecting property name"),
        (b"[" * 9999, {"format": "jsonl"}, "line 1 is no JSON"),
        (b"[1]", {"format": "jsonl"}, "line 1 has no field '1'"),
        (b'{"a": 1}', {"format": "jsonl"}, "line 1 has no field '1'; it has 'a'"),
        (b'\n{"1": 1, "2": "x"}', {"format": "jsonl"}, "line 2 has no text in the field '1' (int)"),
        (b"", {}, "no sentence pairs in this file"),
        (b"a\tb\n", {"train_source": "x", "train_target": "y"}, "are both set"),
        (b"a\tb\n", {"format": "csv"}, "data.text.format is 'csv'; choose one of tsv, jsonl"),
        (b"a\tb\n", {"source_field": "9" * 5_000}, "give the number of a column"),
        (b"a\tb\n", {"source_field": "0"}, "data.text.source_field is '0'; give the number"),
    ],
)
def test_a_bad_table_is_a_line(tmp_path, content, keys, message):
    with pytest.raises(UserError) as caught:
        list(both(tmp_path, content, **keys).pairs("train"))
    assert message in str(caught.value) and "\n" not in str(caught.value)
