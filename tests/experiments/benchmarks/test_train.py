"""The training benchmark: what it counts, whose turn it is, what it writes."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import train
from experiments.benchmarks.peers import Missing
from experiments.benchmarks.train import Case, measure


def test_flops_are_three_times_the_forward_products() -> None:
    case = Case("tiny", rows=20, length=8)
    D, F, N, V = 128, 256, 4, 10_000
    encoder = 4 * D * D + 2 * 8 * D + 2 * D * F
    decoder = 8 * D * D + 4 * 8 * D + 2 * D * F
    assert case.flops == 3 * 2 * (20 * 8) * (N * (encoder + decoder) + D * V)
    assert case.tokens == 20 * 8 - 2 * 4, "one row in ten is half padding"


def test_the_two_take_turns() -> None:
    turns = []

    def contender(name: str, seconds: list[float]):
        def steps(calls: int) -> float:
            turns.append((name, calls))
            return calls * seconds.pop(0)

        return steps

    ours = contender("a", [0.25, 9.0, 1.0, 9.0, 3.0, 9.0, 2.0])
    row = measure(ours, contender("b", [9.0, 3.0, 9.0, 3.0, 9.0, 8.0]), 3)
    assert row == {"ours_ms": 2_000.0, "pytorch_ms": 3_000.0, "ratio": 3.0}
    assert turns == [("a", 1), *[("a", 1), ("a", 4), ("b", 1), ("b", 4)] * 3]


def test_the_limit_is_what_takes_longer_products_or_memory() -> None:
    case = Case("tiny", 10, 4)  # one row of two words less
    assert case.limit(1_000, case.flops / 2, 1e9) == pytest.approx(38 / 2)
    assert case.limit(1_000, case.flops / 2, 28_000 / 4) == pytest.approx(38 / 4)


@pytest.mark.optax
@pytest.mark.slow
def test_ours_alone_is_measured_drawn_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(train, "matrix_rate", lambda: 1e9)
    monkeypatch.setattr(train, "memory_rate", lambda: 1e9)
    monkeypatch.setattr(train, "write_figure", lambda *drawn: figures.append(drawn))
    path, picture = tmp_path / "train.json", tmp_path / "train.png"
    train.main(
        ["--cases", "tiny,10,4", "--rounds=1", "--no-peer", f"--json={path}", f"--png={picture}"]
    )
    (row,) = json.loads(path.read_text())["rows"]
    ((drawn, figure),) = figures
    (axes,), (bar,) = figure.axes, figure.axes[0].patches
    assert drawn == picture and axes.get_title() == "tiny, 10 rows of 4"
    assert bar.get_height() == row["tokens_per_second"]
    assert list(axes.lines[0].get_ydata()) == [row["limit_tokens_per_second"]] * 2
    assert {name for name, _ in train.PARTS} <= {*row["where"]}
    assert all(part["ms"] > 0 for part in row["where"].values())
    assert row["tokens_per_second"] == pytest.approx(1e3 * 38 / row["ours_ms"])
    limit = 38 * 1e9 / Case("tiny", 10, 4).flops
    assert row["share_of_limit"] == pytest.approx(row["tokens_per_second"] / limit)
    assert "PyTorch: not asked" in capsys.readouterr().out


def test_a_peer_that_cannot_be_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: str) -> Path:
        raise Missing("torch cannot be installed: no network")

    monkeypatch.setattr(train, "environment", fails)
    monkeypatch.setattr(train, "matrix_rate", lambda: 1e9)
    monkeypatch.setattr(train, "memory_rate", lambda: 1e9)
    with pytest.raises(SystemExit, match=r"^error: torch cannot be installed: no network; --no-pe"):
        train.main([])


def test_the_wrong_device_is_refused() -> None:
    with pytest.raises(SystemExit, match="--device=gpu, but JAX runs on cpu"):
        train.main(["--device=gpu"])
