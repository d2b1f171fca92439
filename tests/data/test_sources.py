import gzip
import logging
from typing import Any

import pytest

from transformer.data.sources import SOURCES, CasaRoja, Text
from transformer.errors import UserError


def text(folder, source, target, on_bad_line="refuse", suffix=""):
    """A corpus whose training split is these bytes."""
    for name, content in (("a", source), ("b", target)):
        write = gzip.compress(content) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(write)
    paths = str(folder / f"a{suffix}"), str(folder / f"b{suffix}")
    return Text(*paths, "", "", "", "", on_bad_line)


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
        ("uno", "one"),
        ("dos\u2028tres", "two"),
        ("cuatro\vcinco\fseis\rsiete", "three"),
    ]


def test_splits_are_named_by_files(tmp_path):
    corpus = text(tmp_path, b"a\n", b"b\n")
    assert corpus.has("train") and not corpus.has("dev")
    assert "data.text.dev_source" in refusal(corpus, "dev")


def test_one_side_of_a_split_is_refused():
    with pytest.raises(UserError, match=r"dev_source is x but data\.text\.dev_target is empty"):
        Text("", "", "x", "", "", "", "refuse")


@pytest.mark.parametrize("longer", [0, 1])
@pytest.mark.parametrize("on_bad_line", ["refuse", "skip"])
def test_different_lengths_are_always_refused(tmp_path, longer, on_bad_line):
    sides: Any = [b"x\n" * 5, b"x\n" * 5]
    sides[longer] += b"x\n" * 2
    message = refusal(text(tmp_path, sides[0], sides[1], on_bad_line))
    counts = (7, 5) if longer == 0 else (5, 7)
    assert f"{tmp_path}/a has {counts[0]} lines but {tmp_path}/b has {counts[1]}" in message


@pytest.mark.parametrize(
    ("bad", "says"), [(b"caf\xe9", "not UTF-8 (byte 0xe9, the line's 4th)"), (b" \t", "empty")]
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, bad, says, side):
    sides: Any = [b"x\nx\nx\n", b"x\nx\nx\n"]
    sides[side] = b"x\n" + bad + b"\nx\n"
    message = refusal(text(tmp_path, *sides))
    assert message.startswith(f"{tmp_path}/{'ab'[side]}:2: ") and says in message
    assert "data.on_bad_line=skip" in message


def test_bad_lines_are_skipped_and_counted(tmp_path, caplog):
    corpus = text(tmp_path, b"1\n\xff\n3\n4\n5\n", b"1\n2\n \n\n5\n", "skip")
    with caplog.at_level(logging.WARNING):
        assert list(corpus.pairs("train")) == [("1", "1"), ("5", "5")]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"left out 3 bad pairs of 5; the first is {tmp_path}/a:2")


def test_files_without_pairs_are_refused(tmp_path):
    assert "no sentence pairs" in refusal(text(tmp_path, b"", b""))
    assert "no sentence pairs" in refusal(text(tmp_path, b"\n", b"\n", "skip"))


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
    (tmp_path / "b.gz").write_bytes(b"plain text\n")
    assert refusal(corpus).startswith(f"{tmp_path}/b.gz: not a whole gzip file")


def test_a_fingerprint_changes_with_the_content(tmp_path):
    corpus = text(tmp_path, b"x\ny\n", b"z\n\n", "skip")
    first = corpus.fingerprint("train")
    assert first == text(tmp_path, b"x\ny\n", b"z\n\n", "skip").fingerprint("train")
    assert first != text(tmp_path, b"x\ny\n", b"z\n\n", "refuse").fingerprint("train")
    assert first != text(tmp_path, b"z\n\n", b"x\ny\n", "skip").fingerprint("train")
    assert first != text(tmp_path, b"x\ny\n", b"w\n\n", "skip").fingerprint("train")


def test_casa_roja_has_the_sizes_asked_for():
    corpus = CasaRoja(train_size=13, dev_size=5, test_size=7)
    assert [len(list(corpus.pairs(split))) for split in ("train", "dev", "test")] == [13, 5, 7]
    assert corpus.fingerprint("dev") != CasaRoja(13, 6, 7).fingerprint("dev")
    alike = CasaRoja(5, 5, 5)
    assert len({alike.fingerprint(split) for split in ("train", "dev", "test")}) == 3


def test_every_source_answers_the_interface():
    for source in SOURCES.values():
        assert all(hasattr(source, name) for name in ("has", "pairs", "fingerprint"))
