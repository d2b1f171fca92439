"""Dirty text in real files: what training leaves out, and the report that says so."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import base
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment

TRAIN = [
    (b"la casa roja", b"the red house"),  # 1
    (b"caf\xe9 grande", b"big cafe"),  # not UTF-8
    (b"el perro ve\x07 la casa", b"the dog sees the house"),  # a bell
    (b" \t", b"nothing"),  # empty
    (b"la casa roja", b"the red house"),  # 5: a duplicate
    (b"el gato come", b"the cat eats"),  # in the dev set
    (b"una casa", b"a house"),  # in the test set, but for a space
    (b"la " * 70, b"the " * 70),  # too long
    (b"come", b"the cat eats the big red house and sees the dog"),  # out of ratio
    (b"el perro rojo", b"\xc3\x28"),  # 10: not UTF-8
    (b"un perro", b"a dog"),
]
DEV = [(b"el gato come", b"the cat eats"), (b"", b"\xff"), (b"x\x01y", b"z")]
TEST = [(b"una  casa", b"a house"), (b"el gato", b"the cat")]


def write(folder: Path, name: str, pairs: list, packed: bool = False) -> dict[str, str]:
    """Two files; their keys of data.text."""
    paths = {}
    for side, key in enumerate(("source", "target")):
        content = b"\n".join(pair[side] for pair in pairs) + b"\n"
        path = folder / f"{name}.{key}{'.gz' * packed}"
        path.write_bytes(gzip.compress(content) if packed else content)
        paths[f"{name}_{key}"] = str(path)
    return paths


def texts(folder: Path, packed: bool = False, **splits: list) -> dict[str, str]:
    given = {"train": TRAIN * 1, "dev": DEV, "test": TEST, **splits}
    paths = {f"{name}_{side}": "" for name in given for side in ("source", "target")}
    for name, pairs in given.items():
        paths |= write(folder, name, pairs, packed) if pairs else {}
    return paths


def experiment(folder: Path, text: dict, **data: Any) -> Experiment:
    tree = base.get_config("smoke").to_dict()
    tree["data"] |= {"source": "text", "text": text, "cache_dir": str(folder / "cache")}
    tree["data"] |= {"tokens_per_batch": 1_024, "length_multiple": 4}
    tree["data"]["tokenizer"] |= {"vocab_size": 300}
    for key, value in data.items():
        section = tree["data"]
        *sections, last = key.split("__")
        for name in sections:
            section = section[name]
        section[last] = value
    workdir = folder / "run"
    workdir.mkdir(exist_ok=True)
    return Experiment(from_dict(tree), workdir)


def trained_on(made: Experiment) -> list[int]:
    """Numbers of the lines of one epoch."""
    batches = made.train_batches
    steps = range(batches.plan.batches_per_epoch)
    return sorted(int(i) + 1 for step in steps for i in batches.examples(step))


def reported(made: Experiment) -> dict:
    return json.loads((made.workdir / "data_report.json").read_text())


@pytest.mark.parametrize("packed", [False, True])
def test_each_kind_of_dirt_is_listed_by_its_lines(tmp_path, packed, caplog):
    made = experiment(tmp_path, texts(tmp_path, packed))
    with caplog.at_level(logging.WARNING):
        assert trained_on(made) == [1, 3, 5, 9, 11]
    found = reported(made)
    train = found["train"]
    assert (train["pairs"], train["kept"]) == (11, 5)
    kinds = {kind: (about["left_out"], about["lines"]) for kind, about in train["problems"].items()}
    assert kinds == {
        "not_utf8": (True, [2, 10]),
        "control_characters": (False, [3]),
        "empty": (True, [4]),
        "duplicates": (False, [5]),
        "held_out": (True, [6, 7]),
        "too_long": (True, [8]),
        "ratio": (True, []),
    }
    assert all(about["count"] == len(about["lines"]) for about in train["problems"].values())
    assert train["from"]["text"].startswith(str(tmp_path / "train.source"))
    dev = found["dev"]
    assert (dev["pairs"], dev["kept"]) == (3, 3)
    assert dev["problems"]["not_utf8"] == {"count": 1, "left_out": False, "lines": [2]}
    assert dev["problems"]["control_characters"]["lines"] == [3]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "left out 6 of 11 training pairs (2 not UTF-8, 1 with an empty side, 2 in the dev or test "
        f"set, 1 too long): see {tmp_path}/run/data_report.json"
    ]
    # Every line of the other sets is there, in its place.
    dev_batches = made.eval_batches(made.store("dev"))
    assert sorted(dev_batches.examples(0).tolist()) == [0, 1, 2]
    before = (made.workdir / "data_report.json").read_bytes()
    assert trained_on(Experiment(made.config, made.workdir)) == [1, 3, 5, 9, 11]
    assert (made.workdir / "data_report.json").read_bytes() == before


def test_what_is_left_out_is_configured(tmp_path):
    choices = {
        "not_utf8": False,
        "control_characters": True,
        "empty": False,
        "duplicates": True,
        "held_out": False,
    }
    options = {f"leave_out__{kind}": choice for kind, choice in choices.items()}
    made = experiment(tmp_path, texts(tmp_path), max_ratio=2.5, **options)
    (tokens,) = [made.store("train").lengths[3]]
    assert tokens.min() == 1  # the empty side is its end alone: out of ratio, too
    lengths = np.sort(made.store("train").lengths, axis=1)
    far = np.flatnonzero(lengths[:, 1] > 2.5 * lengths[:, 0]) + 1
    assert {4, 9} <= set(far.tolist())
    expected = {1, 2, 4, 6, 7, 9, 10, 11} - set(far.tolist())
    assert trained_on(made) == sorted(expected)
    found = reported(made)["train"]["problems"]
    assert found["ratio"] == {"count": len(far), "left_out": True, "lines": far.tolist()}
    assert found["held_out"]["lines"] == [6, 7] and not found["held_out"]["left_out"]


def test_the_tokenizer_learns_nothing_of_what_is_left_out(tmp_path):
    made = experiment(
        tmp_path, texts(tmp_path, train=[*TRAIN, *[(b"\xff" + b"qqqq", b"qqqq")] * 50])
    )
    assert not any("q" in piece for piece in made.tokenizer.pieces(range(made.tokenizer.size)))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([(b"\xff", b"a")] * 3 + [(b"", b"a")], "3 not UTF-8, 1 with an empty side"),
        ([*[(b"a b " * 90, b"a b")] * 3, (b"\xff", b"x")], "1 not UTF-8, 3 too long"),
    ],
)
def test_nothing_left_is_one_line_that_says_what_fell_to_what(tmp_path, pairs, says):
    made = experiment(tmp_path, texts(tmp_path, train=pairs), tokenizer__vocab_size=270)
    with pytest.raises(UserError) as caught:
        _ = made.train_batches
    assert f"none of 4 training pairs is left ({says})" in str(caught.value)
    assert "\n" not in str(caught.value) and "data.leave_out" in str(caught.value)


def test_a_test_set_that_comes_later_is_refused(tmp_path):
    assert trained_on(experiment(tmp_path, texts(tmp_path, test=[])))
    with pytest.raises(UserError, match="the test set is not the one"):
        _ = experiment(tmp_path, texts(tmp_path)).train_batches


def mixture(folder: Path, **parts: tuple[list, float]) -> dict:
    result = {}
    for name, (pairs, rate) in parts.items():
        (folder / name).mkdir(exist_ok=True)
        text = texts(folder / name, train=pairs, test=[])
        result[name] = {"source": "text", "rate": rate, "text": text}
    return result


@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_a_mixture_with_rates(tmp_path, batching):
    parts = mixture(tmp_path, a=(TRAIN, 0.5), b=(TRAIN[::-1], 1.0), c=(TRAIN[:1] * 7, 2.3))
    empty = texts(tmp_path, train=[], dev=[], test=[])
    made = experiment(tmp_path, empty, source="mixture", mixture=parts, batching=batching)
    batches = made.train_batches
    found = reported(made)
    train = found["train"]["problems"]
    assert train["not_utf8"]["lines"] == {"a": [2, 10], "b": [2, 10], "c": []}
    assert train["empty"]["lines"] == {"a": [4], "b": [8], "c": []}
    assert train["held_out"]["lines"] == {"a": [6], "b": [6], "c": []}
    assert found["dev"]["pairs"] == 3 and list(found["dev"]["from"]) == ["a"]
    kept = {"a": [0, 2, 4, 6, 8, 10], "b": [11, 13, 15, 17, 19, 21], "c": list(range(22, 29))}
    kept["b"] = [11 + 10 - i for i in reversed(kept["a"])]
    for epoch in range(2):
        first = epoch * batches.plan.batches_per_epoch
        steps = range(first, first + batches.plan.batches_per_epoch)
        seen = np.bincount(np.concatenate([batches.examples(s) for s in steps]), minlength=29)
        assert set(np.flatnonzero(seen)) <= {i for some in kept.values() for i in some}
        assert seen[kept["a"]].max() == 1 and seen[kept["b"]].tolist() == [1] * 6
        assert set(seen[kept["c"]].tolist()) <= {2, 3}
    again = experiment(tmp_path, empty, source="mixture", mixture=parts, batching=batching)
    last = steps[-1]
    assert again.train_batches.batch_digest(last) == batches.batch_digest(last)
