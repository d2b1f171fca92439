"""The benchmark beside JoeyNMT: our side of it for real, its configuration, and (marked) itself."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import joeynmt
from experiments.benchmarks.joeynmt import Span, configuration
from experiments.benchmarks.peers import Missing
from tests.support.processes import ROOT, TINY
from transformer.config.experiment_files import load_config
from transformer.data.sources import CasaRoja

SMOKE = f"--config={ROOT}/experiments/multi30k_en_de_tiny.py:smoke"
SPANS = ("--updates=6", "--every=2", "--log-every=2", "--rounds=1")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments for two small files of text."""
    pairs = list(CasaRoja(400, 1, 1).pairs("train"))
    for side, name in enumerate(("source", "target")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in pairs))
    return [f"--{name}={tmp_path / name}" for name in ("source", "target")]


def test_ours_alone_is_measured_and_recorded(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    path = tmp_path / "joeynmt.json"
    joeynmt.main([*files, TINY, *SPANS, "--no-peer", f"--json={path}"])
    result = json.loads(path.read_text())
    assert 0 < result["tokens_per_second"]["ours"] == result["rounds"][0]["ours"]
    assert "JoeyNMT: not asked" in capsys.readouterr().out


def test_the_configuration_is_ours(tmp_path: Path) -> None:
    config = load_config(joeynmt.CONFIG, ["--config.data.source=text"])
    said = configuration(config, tmp_path / "tokenizer.model", tmp_path, Span(50, 150, 10))
    encoder, training = said["model"]["encoder"], said["training"]
    assert (encoder["num_layers"], encoder["hidden_size"], encoder["ff_size"]) == (4, 128, 256)
    assert (encoder["layer_norm"], encoder["activation"]) == ("post", "relu")
    assert training["batch_size"] == 8_192 and training["label_smoothing"] == 0.1
    assert training["learning_rate"] == pytest.approx(0.005)
    assert (training["updates"], training["validation_freq"], training["logging_freq"]) == (
        150, 50, 10,
    )  # fmt: skip


def test_a_run_that_fails_is_one_line(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> float:
        raise Missing("transformer train: no space left")

    monkeypatch.setattr(joeynmt, "ours", fails)
    with pytest.raises(SystemExit, match=r"^error: transformer train: no space left$"):
        joeynmt.main([*files, "--no-peer"])


@pytest.mark.peers
def test_both_train(files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "joeynmt.json"
    joeynmt.main([*files, SMOKE, *SPANS, f"--json={path}"])
    figures = json.loads(path.read_text())["tokens_per_second"]
    assert figures["ratio"] == pytest.approx(figures["ours"] / figures["joeynmt"])
