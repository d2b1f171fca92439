"""`transformer compare` in a real process: stopped, gone on with, and what it leaves."""

import json
from pathlib import Path

import pytest

from tests.support.processes import ROOT, error_line, run, start, stop_once

SMOKE = f"--config={ROOT}/experiments/compare.py:smoke"
PICTURES = ("speed", "recall-copy", "lengths", "alignments")


@pytest.mark.long
def test_a_comparison_is_stopped_and_gone_on_with(tmp_path: Path) -> None:
    workdir = tmp_path / "compare"
    command = ("compare", SMOKE, f"--workdir={workdir}")
    process = start(*command, cache=tmp_path)
    first = workdir / "results" / "translation.lstm_luong.0.json"
    errors = stop_once(process, first)
    assert process.returncode == 42, errors
    assert first.exists() and not (workdir / "report.md").exists()

    before = first.stat().st_mtime_ns
    code, output, errors = run(*command, cache=tmp_path, timeout=900)
    assert code == 0, errors
    assert first.stat().st_mtime_ns == before  # what was measured is not measured again
    assert [Path(line).name for line in output.splitlines()] == [
        "report.md",
        "report.html",
        "report.json",
    ]
    report = json.loads((workdir / "report.json").read_text())
    assert {len(runs) for runs in report["results"]["translation"].values()} == {2}
    assert len(report["results"]["recall.copy"]["lstm_none"][0]["reach"]["trained"]) == 11 + 3 + 1
    assert set(report["speeds"]) == {"16", "32"}
    text = (workdir / "report.md").read_text()
    for name in PICTURES:
        assert (workdir / f"report-{name}.png").exists()
        assert f"report-{name}.png" in text
    for finding in report["findings"]:
        assert finding["measured"] in text

    # A run of it is a run like any other.
    one = workdir / "runs" / "translation" / "lstm_luong" / "seed-1"
    code, output, errors = run("attention", f"--workdir={one}", "la casa", cache=tmp_path)
    assert code == 0 and "casa" in output, errors

    changed = "--config.translation.transformer.model.heads=2"
    code, _, errors = run(*command, changed, cache=tmp_path)
    assert code == 1 and "whose translation.transformer.model.heads differ" in error_line(errors)
    code, _, errors = run("compare", SMOKE, f"--workdir={one}", cache=tmp_path)
    assert code == 1 and "is no report's" in error_line(errors)
