"""Recall: what is asked, over which distance, and that no pair comes twice in any split."""

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest

from experiments import recall as experiment
from transformer.config import from_dict
from transformer.config.experiment_files import load_config
from transformer.data import Pair, Recall, recall
from transformer.errors import UserError
from transformer.experiment import Experiment

TASKS = ("copy", "reverse", "associative")
KIND = {"item_count": 5, "symbols": 7, "distances": (3, 0, 11)}


def corpus(task: str, train: int = 13, dev: int = 5, test: int = 11, **kind) -> Recall:
    options = {"task": task, "distance_weights": (), **KIND, **kind}
    return Recall(**options, train_size=train, dev_size=dev, test_size=test)


def symbols(pair: Pair) -> str:
    """A pair without its blanks."""
    return pair.source.replace(recall.BLANK, "").strip()


@pytest.mark.parametrize("task", TASKS)
def test_the_target_is_what_the_task_asks_for(task: str) -> None:
    pairs = list(corpus(task, train=300).pairs("train"))
    for index, pair in enumerate(pairs):
        words, blanks = pair.source.split(), KIND["distances"][index % 3]
        told = words[: -blanks - 1] if task == "associative" else words[: len(words) - blanks]
        assert words == [*told, *"." * blanks, *words[len(told) + blanks :]]
        assert "." not in told and recall.distance(pair.source) == blanks
        if task == "associative":
            keys, values = told[::2], told[1::2]
            assert len(keys) == len(set(keys)) == len(values) == 5
            assert {*keys} < {*"abcdefg"} and {*values} <= {*"ABCDEFG"}
            assert dict(zip(keys, values, strict=True))[words[-1]] == pair.target
        else:
            assert len(told) == 5 and {*told} <= {*"abcdefg"}
            assert pair.target.split() == (told if task == "copy" else told[::-1])


def test_copy_and_reverse_have_the_same_sources() -> None:
    forwards, backwards = (corpus(task).pairs("train") for task in ("copy", "reverse"))
    assert [pair.source for pair in forwards] == [pair.source for pair in backwards]


@pytest.mark.parametrize("task", TASKS)
def test_distances_come_equally_often(task: str) -> None:
    pairs = corpus(task, train=303).pairs("train")
    assert Counter(recall.distance(pair.source) for pair in pairs) == {3: 101, 0: 101, 11: 101}


def test_weights_say_how_often_each_distance_comes_in_training() -> None:
    weighted = corpus("copy", train=120, dev=30, distance_weights=(3, 2, 1))
    count = lambda split: Counter(recall.distance(p.source) for p in weighted.pairs(split))  # noqa: E731
    assert count("train") == {3: 60, 0: 40, 11: 20}
    assert count("dev") == {3: 10, 0: 10, 11: 10}
    alike = corpus("copy", train=120, dev=30)
    assert weighted.fingerprint("train") != alike.fingerprint("train")
    assert weighted.fingerprint("dev") == alike.fingerprint("dev")


@pytest.mark.parametrize(("task", "space"), [("copy", 4**3), ("associative", 4 * 3 * 2 * 4**3 * 3)])
def test_no_symbols_come_twice_in_any_splits(task: str, space: int) -> None:
    most = recall.count_pairs(task, item_count=3, symbols=4)
    assert most == space // 3
    whole = corpus(task, most, most, most, item_count=3, symbols=4)  # as many as there are
    seen = {split: [symbols(pair) for pair in whole.pairs(split)] for split in recall.SPLITS}
    assert all(len(set(split)) == len(split) == most for split in seen.values())
    assert len(set().union(*seen.values())) == 3 * most


@pytest.mark.parametrize("task", ["copy", "associative"])
def test_symbols_are_drawn_evenly_and_apart(task: str) -> None:
    """Any two of a sentence, and any one and the distance, in each combination as often."""
    pairs = list(corpus(task, train=4_200, distances=(1, 2, 3)).pairs("train"))
    columns = [[recall.distance(pair.source) for pair in pairs]]
    if task == "copy":
        columns += [[pair.source.split()[place] for pair in pairs] for place in range(5)]
    else:  # two keys, values of others, and which key is asked for
        columns += [[pair.source.split()[place] for pair in pairs] for place in (0, 2, 5, 7)]
        columns += [[pair.source.split().index(pair.source[-1]) for pair in pairs]]
    for one, other in itertools.combinations(columns, 2):
        found = Counter(zip(one, other, strict=True))
        possible = len(set(one)) * len(set(other))
        if task == "associative" and (one, other) == (columns[1], columns[2]):
            possible -= 7  # a key does not come twice
        assert len(found) == possible
        expected = len(pairs) / possible
        chi_squared = sum((count - expected) ** 2 / expected for count in found.values())
        assert abs(chi_squared - possible) < 5 * math.sqrt(2 * possible)


def test_pairs_are_a_function_of_their_arguments() -> None:
    # Neither the sizes nor the other splits move a pair.
    few, many = (list(corpus("copy", n, n, n).pairs("dev")) for n in (7, 70))
    assert many[:7] == few
    # The same in every process and on every machine: a change here is one of everybody's data.
    assert recall.pair("copy", "train", 0, **KIND) == ("b e g c g . . .", "b e g c g")
    pinned = ("a C f E g C e D c E g", "C")
    assert recall.pair("associative", "test", 4, **KIND) == pinned


def test_a_fingerprint_changes_with_each_key() -> None:
    plain = corpus("copy")
    others = [
        corpus("reverse"),
        corpus("copy", item_count=4),
        corpus("copy", symbols=6),
        corpus("copy", distances=(3, 0, 12)),
        corpus("copy", dev=6),
    ]
    assert len({source.fingerprint("dev") for source in (plain, *others)}) == 6
    alike = corpus("copy", 5, 5, 5)
    assert len({alike.fingerprint(split) for split in recall.SPLITS}) == 3
    assert corpus("copy", train=17).fingerprint("dev") == plain.fingerprint("dev")
    assert plain.origins("dev") == {"recall": "5 pairs of copy over 3, 0, 11 blanks"}


def test_refuses_what_it_cannot_give() -> None:
    with pytest.raises(ValueError, match="dev has 5,602 pairs and no pair 5,602"):
        recall.pair("copy", "dev", 5_602, **KIND)
    with pytest.raises(ValueError, match="no pair -1"):
        recall.pair("copy", "dev", -1, **KIND)
    with pytest.raises(UserError, match=r"dev_size is 5,603; 5 items of 7 .* give 5,602 pairs"):
        next(corpus("copy", dev=5_603).pairs("dev"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "sort"}, r"data.recall.task is 'sort'; choose one of copy, reverse, associative"),
        ({"item_count": 0}, r"data.recall.item_count is 0; it must be above 0"),
        ({"symbols": 1}, r"data.recall.symbols is 1; each is a letter, so take 2 to 26"),
        ({"symbols": 27}, r"data.recall.symbols is 27; .* take 2 to 26"),
        (
            {"task": "associative", "item_count": 9},
            r"data.recall.item_count is 9 but there are 8 symbols",
        ),
        ({"distances": ()}, r"data.recall.distances is \(\); it needs one or more"),
        ({"distances": (10, -1)}, r"data.recall.distances is \(10, -1\); .* none below 0"),
        ({"distances": (10, 10)}, r"data.recall.distances is \(10, 10\); .* each once"),
        (
            {"distances": (1, 2), "distance_weights": (1,)},
            r"data.recall.distance_weights is \(1,\); it needs a number above 0 for each",
        ),
        ({"distances": 10}, r"config.data.recall.distances is 10; it must be a list"),
        ({"dev_size": 0}, r"data.recall.dev_size is 0; it must be above 0"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = experiment.get_config("smoke").to_dict()
    tree["data"]["recall"] |= {"item_count": 8} | changes
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value)


def test_each_key_can_be_overridden() -> None:
    """Which a name that is a method of ConfigDict's cannot, such as `items`."""
    changes = {"task": "reverse", "item_count": 2, "symbols": 9, "distances": (1, 4)}
    changes["distance_weights"] = (3, 1)
    changes |= {"train_size": 31, "dev_size": 3, "test_size": 7}
    overrides = [f"--config.data.recall.{key}={value}" for key, value in changes.items()]
    config = load_config(f"{experiment.__file__}:smoke", overrides)
    assert vars(config.data.recall) == changes


def test_it_is_a_part_of_a_mixture(tmp_path: Path) -> None:
    tree = experiment.get_config("smoke").to_dict()
    parts = {
        task: {"source": "recall", "rate": 1.0, "recall": {**tree["data"]["recall"], "task": task}}
        for task in ("copy", "reverse")
    }
    tree["data"] |= {"source": "mixture", "mixture": parts}
    config = from_dict(tree)
    assert from_dict(config.as_dict()) == config
    pairs = list(Experiment(config, tmp_path).corpus.pairs("train"))
    first = {pair.part: pair.target for pair in reversed(pairs)}
    assert len(pairs) == 240 and first[0] == first[1][::-1]


@pytest.mark.parametrize("letters", [8, 26])
@pytest.mark.parametrize("variant", ["copy", "associative", "associative,smoke"])
def test_a_symbol_is_a_token(variant: str, letters: int, tmp_path: Path) -> None:
    """As the experiment trains its tokenizer; and its longest pair fits into its max_length."""
    config = experiment.get_config(variant)
    config.data.recall.symbols = letters
    config.data.recall.train_size = 170
    parts = Experiment(from_dict(config.to_dict()), tmp_path)
    pairs = list(parts.corpus.pairs("train"))
    for texts in zip(*(pair[:2] for pair in pairs), strict=True):
        ids = parts.tokenizer.encode(list(texts))
        assert [len(sentence) for sentence in ids] == [len(text.split()) for text in texts]
        assert parts.tokenizer.decode(ids) == list(texts)
    lengths = parts.store("train").lengths  # these count </s>
    assert lengths.tolist() == [[len(side.split()) + 1 for side in pair[:2]] for pair in pairs]
    assert lengths.max() <= parts.config.data.max_length
    seen = {symbol for pair in pairs for symbol in pair.source.split()}
    assert len(seen) == (1 + variant.startswith("associative")) * letters + 1
    assert parts.tokenizer.size == 4 + 256 + 1 + 2 * len(seen) <= config.data.tokenizer.vocab_size
