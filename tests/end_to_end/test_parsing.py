"""Parsing through the command line: bracketed files in, labelled brackets and trees out."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from experiments import parsing, wsj_parsing
from tests.support.processes import ROOT, error_line, metrics, run
from transformer.config import from_dict
from transformer.data.treebank import linearise, orchard, read_text
from transformer.data.treebank import pair as as_pair
from transformer.decoding import shown_as
from transformer.errors import UserError
from transformer.evaluation.evaluate import _of_trees
from transformer.experiment import Experiment

CONFIG = f"--config={ROOT}/experiments/parsing.py:smoke"


def treebank(folder: Path) -> list[str]:
    """A config's arguments for bracketed files of three splits, written into a folder."""
    arguments = ["--config.data.source=treebank"]
    for split, size in (("train", 300), ("dev", 17), ("test", 11)):
        grown = orchard.trees(split, size)
        path = folder / f"{split}.mrg"
        path.write_text("\n".join(f"( {tree.bracketed()} )" for tree in grown))
        arguments.append(f"--config.data.treebank.{split}={path}")
    return arguments


@pytest.mark.slow
@pytest.mark.optax
def test_your_own_trees_are_learned_and_scored(tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path}/run"
    arguments = ("train", CONFIG, workdir, *treebank(tmp_path))
    code, _, errors = run(*arguments, cache=tmp_path)
    assert code == 0, errors
    losses = [line["loss"] for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    code, output, errors = run("evaluate", workdir, "--checkpoint=last", cache=tmp_path)
    assert code == 0, errors
    values = dict(re.findall(r"^(\w+) +(\d+\.\d\d)", output, re.MULTILINE))
    assert {"BLEU", "precision", "recall", "F1", "complete", "mended"} <= set(values)
    kept = json.loads((tmp_path / "run" / "evaluation.test.json").read_text())
    assert f"{kept['brackets']['f1']:.2f}" == values["F1"]
    written = (tmp_path / "run" / "trees.test.txt").read_text()
    assert [t.words for t in read_text(written)] == [t.words for t in orchard.trees("test", 11)]
    (tmp_path / "input").write_text("the girl sleeps .\n\nshe (draws) the dog .\n")
    with (tmp_path / "input").open() as stdin:
        code, output, errors = run("translate", workdir, cache=tmp_path, stdin=stdin)
    assert code == 0, errors
    first, second, third = output.splitlines()
    words = [" ".join(tree.words) for line in (first, third) for tree in read_text(line)]
    assert words == ["the girl sleeps .", "she -LRB-draws-RRB- the dog ."] and second == ""


@pytest.mark.slow
def test_bad_brackets_end_the_training_with_one_line(tmp_path: Path) -> None:
    arguments = treebank(tmp_path)
    with (tmp_path / "train.mrg").open("a") as file:
        file.write("\n(S (NP the (NN dog)))")
    code, _, errors = run("train", CONFIG, f"--workdir={tmp_path}/run", *arguments, cache=tmp_path)
    assert code == 1
    assert error_line(errors).startswith(f"{tmp_path}/train.mrg, line 301: the word the has no")


def test_pairs_of_a_treebank_are_scored_as_trees() -> None:
    """One is said right, one is no tree, one has no words."""
    trees = [*orchard.trees("train", 2), *read_text("(S (-NONE- *))")]
    said = [linearise(trees[0]), "(S XX", ""]
    scores, lines = _of_trees(said, [as_pair(tree) for tree in trees])
    assert [[tree.words for tree in read_text(line)] for line in lines] == [
        [tree.words] if tree.words else [] for tree in trees
    ]
    assert scores.sentences == 3 and scores.mended == pytest.approx(100 / 3)
    assert scores.complete_match == pytest.approx(200 / 3)
    assert scores.precision == 100.0 and 0 < scores.recall < 100.0


def test_what_is_shown_of_a_translation(tmp_path: Path) -> None:
    config = parsing.get_config("smoke")
    show = shown_as(Experiment(from_dict(config.to_dict()), tmp_path))
    assert show("a  b", "(NP XX XX )NP") == "(NP (XX a) (XX b))"
    assert show("", "") == ""
    config.data.source = "casa_roja"
    show = shown_as(Experiment(from_dict(config.to_dict()), tmp_path))
    assert show("la casa", "(NP XX XX )NP") == "(NP XX XX )NP"


def test_brackets_are_pieces(tmp_path: Path) -> None:
    """With their labels, each one token, as the experiment trains its tokenizer; a word is few."""
    config = parsing.get_config()
    config.data.orchard.train_size = 500
    parts = Experiment(from_dict(config.to_dict()), tmp_path)
    targets = [pair.target for pair in parts.corpus.pairs("train")]
    ids = parts.tokenizer.encode(targets)
    assert [len(target) for target in ids] == [len(target.split()) for target in targets]
    assert parts.tokenizer.decode(ids) == targets
    longest = max(len(tree.words) for tree in orchard.trees("train", 500))
    assert longest <= orchard.MAX_WORDS < parts.config.data.max_length
    assert max(map(len, ids)) < parts.config.data.max_length


def test_trees_that_parsers_made_are_a_part_of_a_mixture(tmp_path: Path) -> None:
    arguments = [argument.split("=")[1] for argument in treebank(tmp_path)[1:]]
    config = wsj_parsing.get_config("semi_supervised,smoke")
    config.data.source = "mixture"
    for key, path in zip(("train", "dev", "test"), arguments, strict=True):
        config.data.mixture.wsj.treebank[key] = path
    config.data.mixture.more.treebank.train = arguments[1]
    parts = Experiment(from_dict(config.to_dict()), tmp_path)
    one_side = dataclasses.replace(parts.config.data, side="target")
    assert not one_side.of_trees  # brackets without the words that they are of
    assert parts.config.data.of_trees and parts.config.model.vocab_size < 32_000
    assert [pair.part for pair in parts.corpus.pairs("train")] == [0] * 17 + [1] * 300  # more, wsj
    assert all(pair.tags for pair in parts.corpus.pairs("test"))
    unchanged = wsj_parsing.get_config("semi_supervised").data
    assert unchanged.tokenizer.vocab_size == 32_000
    assert unchanged.mixture.wsj.rate > unchanged.mixture.more.rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "orchard", "treebank": {"train": "x"}}, "data.treebank.train is set but data"),
        ({"source": "text", "treebank": {"train": "x"}}, "add --config.data.source=treebank"),
        ({"tokenizer": {"lowercase": True}}, "the labels of trees have capitals: set it False"),
        ({"orchard": {"dev_size": 0}}, "data.orchard.dev_size is 0; it must be above 0"),
        ({"treebank": {"train": 3}}, "config.data.treebank.train is 3, a int; it must be str"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = parsing.get_config("smoke").to_dict()
    for key, value in changes.items():
        if isinstance(value, dict):
            tree["data"][key].update(value)
        else:
            tree["data"][key] = value
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value)


def test_the_paper_s_setting() -> None:
    """Input + 300, beam 21, α 0.3, 4 layers of 1024, 16K tokens (AIAYN §6.3)."""
    config = from_dict(wsj_parsing.get_config().to_dict())
    decoding = config.decoding
    assert (decoding.extra_length, decoding.beam, decoding.alpha) == (300, 21, 0.3)
    assert config.model.encoder_layers == config.model.decoder_layers == 4
    assert config.model.d_model == config.model.heads * config.model.d_k == 1024
    assert config.model.vocab_size == 16_000
