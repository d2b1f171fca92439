"""Families alone, from the command line: what they translate, and what of them can be shown."""

from pathlib import Path

import pytest

from tests.support.processes import ROOT, error_line, run

pytestmark = pytest.mark.slow
QUICK = ("--config.training.steps=2", "--config.training.eval_every=0")


def trained(name: str, folder: Path) -> str:
    workdir = f"--workdir={folder}/run"
    config = f"--config={ROOT}/experiments/{name}.py:smoke"
    code, _, errors = run("train", config, workdir, *QUICK, cache=folder)
    assert code == 0, errors
    return workdir


def translated(workdir: str, folder: Path, *lines: str) -> list[str]:
    (folder / "input").write_text("".join(line + "\n" for line in lines))
    with (folder / "input").open() as stdin:
        code, output, errors = run("translate", workdir, cache=folder, stdin=stdin)
    assert code == 0, errors
    return output.split("\n")[:-1]


def test_a_language_model_goes_on_and_shows_what_it_looked_at(tmp_path: Path) -> None:
    workdir = trained("language_model", tmp_path)
    found = translated(workdir, tmp_path, "def attend(x):⏎", "", "x = 1⏎")
    assert len(found) == 3 and found[1] == ""
    arguments = ("attention", workdir, "def attend(x):⏎", "--translation=␣␣␣␣return x⏎")
    code, output, errors = run(*arguments, cache=tmp_path)
    assert code == 0, errors
    # Rows are words that it writes; columns those of the prompt, and those written before.
    assert all(word in output for word in ("def", "</s>", "<s>", "x⏎"))


@pytest.mark.parametrize(
    ("name", "line"),
    [("masked_language_model", "la <mask> es roja"), ("classification", "el casa es roja")],
)
def test_an_encoder_alone_reads_a_line_and_says_one(name: str, line: str, tmp_path: Path) -> None:
    workdir = trained(name, tmp_path)
    assert len(translated(workdir, tmp_path, line, "la casa")) == 2
    code, _, errors = run("attention", workdir, "la casa", "--translation=la", cache=tmp_path)
    assert code == 1
    assert "model.family=encoder writes its words without attention" in error_line(errors)
