"""A run that revision 8835258 trained is opened, evaluated and continued by today's code."""

import json
from pathlib import Path

import pytest

from tests.support import old_run
from tests.support.processes import ROOT, metrics, run

# What revision 8835258 itself made of it: `translate --scores`, `evaluate`, and `train` to step 60.
SCORES = [-20.9680, -22.4568]
EVALUATION = {"loss": 4.611170132088726, "nll": 4.414258078593324, "tokens": 367}
CONTINUED = {50: 4.1561136, 60: 4.0648355}  # training loss by step
DEVELOPMENT = 4.071534394054878  # at step 60


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return old_run.unpack(tmp_path)


def test_an_old_run_says_what_it_said(old: Path, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("la casa roja\nun perro duerme\n", encoding="utf-8")
    with (tmp_path / "input").open(encoding="utf-8") as stdin:
        command = ("translate", f"--workdir={old}", "--scores")
        code, output, errors = run(*command, cache=tmp_path, stdin=stdin)
    assert code == 0, errors
    scores = [float(line.split("\t")[0]) for line in output.splitlines()]
    assert scores == pytest.approx(SCORES, abs=1e-3)


@pytest.mark.slow
def test_an_old_run_is_evaluated_and_goes_on_alike(old: Path, tmp_path: Path) -> None:
    """An old run's losses go on (dropout 0), to 1e-6; its new checkpoints have new names."""
    code, output, errors = run("evaluate", f"--workdir={old}", "--json", cache=tmp_path)
    assert code == 0, errors
    evaluation = json.loads(output)
    assert {key: evaluation[key] for key in EVALUATION} == pytest.approx(EVALUATION, rel=1e-5)
    tiny = f"--config={ROOT}/tests/support/tiny.py"
    keys = (
        *("model.dropout=0.0", "checkpoints.every=20", "checkpoints.keep_last=2"),
        *("training.eval_every=20", "training.eval_bleu=True", "divergence.action=skip"),
        *("data.tokenizer.vocab_size=320", "divergence.spike=50.0", "training.steps=60"),
    )
    changes = [f"--config.{key}" for key in keys]
    for _ in range(2):
        code, _, errors = run("train", tiny, f"--workdir={old}", *changes, cache=tmp_path)
        assert code == 0, errors
    lines = metrics(old)
    trained = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    assert {step: trained[step] for step in CONTINUED} == pytest.approx(CONTINUED, rel=1e-6)
    assert lines[-1]["loss"] == pytest.approx(DEVELOPMENT, rel=1e-6)
    digests = json.loads((old / "checkpoints/60/meta/metadata").read_text("utf-8"))["digests"]
    assert any("self_attention_residual" in path for path in digests)
