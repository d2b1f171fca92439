"""What the README promises first: the quickstart's training, and every experiment at smoke size."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import EXPERIMENTS, ROOT, metrics, run


@pytest.mark.long
def test_casa_roja_is_learned(tmp_path: Path) -> None:
    """Held-out combinations are translated, as the experiment's header says; by steps, not time."""
    config = f"--config={ROOT}/experiments/casa_roja.py"
    workdir = f"--workdir={tmp_path}/run"
    command = ("train", config, workdir, "--config.training.minutes=0.0")
    code, _, errors = run(*command, cache=tmp_path, timeout=1_800, optimize=True)
    assert code == 0, errors
    code, output, errors = run("evaluate", workdir, "--json", cache=tmp_path, optimize=True)
    assert code == 0, errors
    scores = json.loads(output)
    assert scores["sentences"] == 2_000
    assert scores["exact_match"] >= 98.0 and scores["bleu"] >= 98.0
    assert scores["word_for_word"]["exact_match"] < 30.0
    code, output, errors = translate(workdir, "la casa roja", tmp_path)
    assert (code, output) == (0, "the red house\n"), errors


def translate(workdir: str, sentence: str, cache: Path) -> tuple[int, str, str]:
    (cache / "input").write_text(sentence)
    with (cache / "input").open() as stdin:
        return run("translate", workdir, cache=cache, stdin=stdin)


# At smoke size their model, data and steps are those of another one, or another test trains them;
# each has golden text.
LIKE_ANOTHER = {
    "base",
    "classification",
    "iwslt14_de_en_rnn",
    "modern",
    "parsing",
    "table3",
    "wmt14_en_de_big",
    "wmt14_en_de_luong",
    "wmt14_en_fr_base",
    "wmt14_en_fr_big",
    "wsj_parsing",
}


def each_experiment() -> Iterator:
    for path in EXPERIMENTS:
        by_hand = path.stem in LIKE_ANOTHER
        marks = pytest.mark.long if by_hand else pytest.mark.slow
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", list(each_experiment()))
def test_every_experiment_runs_at_smoke_size(path: Path, tmp_path: Path) -> None:
    """It trains, the loss falls by a fifth, and what it trained is evaluated and translates."""
    workdir = tmp_path / "run"
    config = f"--config={path}:smoke"
    code, _, errors = run("train", config, f"--workdir={workdir}", cache=tmp_path)
    assert code == 0, errors
    losses = [line["loss"] for line in metrics(workdir) if line["kind"] == "train"]
    assert losses[-1] <= 0.8 * losses[0]
    code, output, errors = run("evaluate", f"--workdir={workdir}", "--json", cache=tmp_path)
    assert code == 0, errors
    assert json.loads(output)["sentences"] == 64
    code, output, errors = translate(f"--workdir={workdir}", "la casa roja", tmp_path)
    assert code == 0 and output.count("\n") == 1, errors
