"""Files as passages: nothing lost on the way to one line and back, and no file in two splits."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import language_model
from transformer.config import from_dict
from transformer.config.experiment_files import load_config
from transformer.data import Files, Pair, Problem, tokenizers
from transformer.data.passages import PACKAGE, as_line, as_text
from transformer.errors import UserError
from transformer.experiment import Experiment

KEYS: dict[str, Any] = {
    "lines": 3,
    "prompt_lines": 1,
    "unprompted": 0.5,
    "dev_size": 20,
    "test_size": 20,
}
SPLITS = ("train", "dev", "test")


def corpus(folder: Path, count: int = 60, **changes: Any) -> Files:
    """Of so many files of seven lines each."""
    for number in range(count):
        lines = [f"def f{number}(x):", "    return x", "", "\tif a  ==  b:", "        c", "d", "e"]
        (folder / f"{number:03}.py").write_text("\n".join(lines) + "\n")
    return Files((f"{folder}/*.py",), **{**KEYS, **changes})


def test_a_passage_is_one_line(tmp_path: Path) -> None:
    assert as_line("def f(x):\n    return  x\n\ty \n") == "def f(x):⏎␣␣␣␣return␣␣x⏎⇥y⏎"
    source = (PACKAGE / "losses.py").read_text()
    assert as_text(as_line(source)) == source
    pairs = list(corpus(tmp_path).pairs("train"))
    assert {pair.problems for pair in pairs} == {Problem(0)}
    first = next(pair for pair in pairs if pair.source.startswith("def"))
    assert first.source.endswith("(x):⏎") and first.target == "␣␣␣␣return x⏎⏎"
    assert ("⇥if a␣␣==␣␣b:⏎", "␣␣␣␣␣␣␣␣c⏎d⏎") in [pair[:2] for pair in pairs]


@given(st.text("ab \t\n", max_size=30))
def test_nothing_is_lost_but_spaces_at_the_ends_of_lines(text: str) -> None:
    line = as_line(text)
    assert "\n" not in line and "  " not in line and not line.startswith((" ", "\t"))
    assert as_text(line) == "\n".join(part.rstrip(" \t") for part in text.split("\n"))


def test_the_tokenizer_gives_a_passage_back(tmp_path: Path) -> None:
    files = corpus(tmp_path)
    options = {"kind": "bpe", "vocab_size": 330, "character_coverage": 1.0, "lowercase": False}
    options["split_scripts"] = True
    path = tmp_path / "model"
    tokenizers.train(files.pairs("train"), path, train_sentences=100, **options)
    tokenizer = tokenizers.SentencePieceTokenizer.load(path)
    sides = [side for pair in files.pairs("test") for side in pair[:2]]
    assert tokenizer.decode(tokenizer.encode(sides)) == sides


def test_splits_share_no_file_and_all_text_is_trained_on(tmp_path: Path) -> None:
    files = corpus(tmp_path, unprompted=1.0)
    texts = {s: "".join(p.source + p.target for p in files.pairs(s)) for s in SPLITS}
    of = {s: {n for n in range(60) if f"def f{n}(" in text} for s, text in texts.items()}
    assert sum(map(len, of.values())) == 60 == len(set().union(*of.values()))
    assert 1 <= len(of["dev"]) <= 12 and 1 <= len(of["test"]) <= 12
    train = list(files.pairs("train"))
    assert all(pair.source == "" for pair in train) and len(train) == 3 * len(of["train"])
    whole = "".join(as_line((tmp_path / f"{n:03}.py").read_text()) for n in sorted(of["train"]))
    assert texts["train"] == whole
    # Of the others each has a prompt, where there is a line to go on with.
    assert all(pair.source or pair.target == "e⏎" for pair in files.pairs("test"))
    drawn = [pair.source == "" for pair in corpus(tmp_path).pairs("train")]
    assert 0.4 < sum(drawn) / len(drawn) < 0.8


def test_a_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = corpus(tmp_path / "a"), corpus(tmp_path / "b")
    assert here.fingerprint("train") == there.fingerprint("train")
    changes = {"lines": 4, "prompt_lines": 2, "unprompted": 0.1, "dev_size": 3}
    others = [corpus(tmp_path / "a", **{key: value}) for key, value in changes.items()]
    others += [here]
    assert len({files.fingerprint("train") for files in others}) == 5
    assert len({here.fingerprint(split) for split in SPLITS}) == 3
    (tmp_path / "b" / "0.py").write_text("x = 1\n")  # the first, which moves no other
    there = corpus(tmp_path / "b")
    assert sum(here.fingerprint(s) != there.fingerprint(s) for s in SPLITS) == 1


def test_a_file_that_changes_after_it_was_given_a_split_is_refused(tmp_path: Path) -> None:
    files = corpus(tmp_path)
    assert files.has("train")  # by what the files hold now
    for path in tmp_path.glob("*.py"):
        path.write_text("another\n" * 9, encoding="utf-8")
    files.fingerprint("train")
    with pytest.raises(UserError, match="changed while it was read"):
        list(files.pairs("train"))


def test_what_is_packed_is_unpacked_by_its_bytes(tmp_path: Path) -> None:
    files = corpus(tmp_path)
    plain = {split: list(files.pairs(split)) for split in SPLITS}
    for path in tmp_path.glob("*.py"):
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    packed = Files((f"{tmp_path}/*.py",), **KEYS)
    assert {split: list(packed.pairs(split)) for split in SPLITS} == plain
    for path in tmp_path.glob("*.py"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="not a whole gzip file"):
        list(Files((f"{tmp_path}/*.py",), **KEYS).pairs("train"))


def test_a_line_ends_at_a_newline_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("a\rb\u2028c\u0085d\r\ne\n".encode() * 20)
    files = Files((f"{tmp_path}/a",), **{**KEYS, "lines": 2, "unprompted": 0.0})
    (pair, *_) = [pair for split in SPLITS if files.has(split) for pair in files.pairs(split)]
    assert pair.target == "e⏎"
    assert Problem.CONTROL_CHARACTERS in pair.problems  # which is said, and left out


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    corpus(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    for pattern, message in {
        "*.py": "pipe.py is no regular file",
        "*.txt": "gone.txt: No such file or directory",
        "": "is a folder: name its files",
        "*.nothing": r"/\*.nothing matches no file",
    }.items():
        with pytest.raises(UserError, match=message):
            Files((f"{tmp_path}/0*.py", f"{tmp_path}/{pattern}"), **KEYS).has("train")


def test_sizes_are_taken_evenly(tmp_path: Path) -> None:
    few, all_of_them = (list(corpus(tmp_path, test_size=n).pairs("test")) for n in (4, 1_000))
    assert len(few) == 4 < len(all_of_them)
    assert few == [all_of_them[i * len(all_of_them) // 4] for i in range(4)]


def test_dirt_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\n\nx\x01\n \n\n")
    files = Files((f"{tmp_path}/*",), **{**KEYS, "lines": 2, "unprompted": 0.0})
    (split,) = (split for split in SPLITS if files.has(split))
    assert list(files.pairs(split)) == [
        Pair("\ufffd⏎", "⏎", Problem.NOT_UTF8),
        Pair("x\x01⏎", "⏎", Problem.CONTROL_CHARACTERS),
    ]
    other = next(split for split in SPLITS if split != split_of(files))
    with pytest.raises(UserError, match=rf"none of the 1 files .* falls to {other}"):
        next(files.pairs(other))
    with pytest.raises(UserError, match=r"data.files.patterns: .*\.txt matches no file"):
        Files((f"{tmp_path}/*.txt",), **KEYS).has("train")


def split_of(files: Files) -> str:
    return next(split for split in SPLITS if files.has(split))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": 0}, r"data.files.lines is 0; it must be above 0"),
        ({"prompt_lines": 2}, r"data.files.prompt_lines is 2 of data.files.lines = 2"),
        ({"unprompted": 1.5}, r"data.files.unprompted is 1.5; it is a share, from 0 to 1"),
        ({"patterns": "a/*.py"}, r"config.data.files.patterns is 'a/\*.py'; it must be a list"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = language_model.get_config("smoke").to_dict()
    tree["data"]["files"] |= changes
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_trained_on(tmp_path: Path) -> None:
    """It is no `Problem.EMPTY`, neither in the corpus nor in its store."""
    patterns = f"('{tmp_path}/*.py',)"
    config = load_config(
        f"{language_model.__file__}:smoke", [f"--config.data.files.patterns={patterns}"]
    )
    assert config.data.files.patterns == (f"{tmp_path}/*.py",)
    corpus(tmp_path)
    parts = Experiment(config, tmp_path / "run")
    (tmp_path / "run").mkdir()
    store = parts.store("train")
    assert (store.lengths[:, 0] == 1).any() and not (store.problems & Problem.EMPTY).any()
    assert parts.train_batches.plan.batches_per_epoch > 0
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]
    assert report["problems"]["empty"]["count"] == 0
    # What also stands in the files of dev or test is left out, as of any corpus.
    assert report["pairs"] - report["kept"] == report["problems"]["held_out"]["count"]
