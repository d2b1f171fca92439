"""The data benchmark: what it measures of a small corpus, and what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import data
from transformer.data import everything, plan_buckets


def test_every_part_is_measured_tabled_drawn_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(data, "write_figure", lambda *drawn: figures.append(drawn))
    path, picture = tmp_path / "data.json", tmp_path / "data.png"
    sizes = ["--sentences=400", "--vocabulary=400", "--pairs=3000", "--rounds=1"]
    data.main([*sizes, f"--json={path}", f"--png={picture}"])
    result = json.loads(path.read_text())
    ((drawn, figure),) = figures
    assert drawn == picture
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    keys = ("sentences_per_second", "sentencepiece_per_second")
    assert heights[0] == [row[key] for row in result["tokenise"] for key in keys]
    assert heights[1] == [row["seconds"] for row in result["plans"]]
    assert heights[2] == [100 * row["share"] for row in result["padding"]]
    assert [row["kind"] for row in result["tokenise"]] == ["bpe", "unigram"]
    for row in result["tokenise"]:
        ratio = row["sentences_per_second"] / row["sentencepiece_per_second"]
        assert row["ratio"] == pytest.approx(ratio)
    assert [(row["plan"], row["pairs"]) for row in result["plans"]] == [
        ("bucketed", 3_000),
        ("packed", 3_000),
    ]
    assert all(row["peak_mib"] > 0 for row in result["plans"])
    assert all(0 <= row["share"] < 1 and row["shapes"] <= 12 for row in result["padding"])
    assert capsys.readouterr().out.count("\n") == 2 + 1 + 2 + 5


def test_padding_is_the_share_of_positions_without_a_token() -> None:
    lengths = np.array([[3, 5], [4, 4], [5, 2], [300, 1]])
    rows = data.padding(lengths)
    kept = lengths[:3]
    plan = plan_buckets(kept, everything(kept), length_multiple=1, **data.BUCKETS)
    positions = sum(b.shape.rows * (b.shape.source + b.shape.target) for b in plan.buckets)
    assert rows[0]["share"] == pytest.approx(1 - kept.sum() / positions)


def test_synthetic_lengths_are_like_wmts() -> None:
    lengths = data.synthetic_lengths(20_000)
    assert 25 < lengths.mean() < 29 and lengths.min() >= 1 and lengths.max() <= 256
    assert np.corrcoef(np.log(lengths.T))[0, 1] > 0.9
