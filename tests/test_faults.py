"""Runs killed at random moments: see faults.py, which also does this by hand, longer."""

import json
from pathlib import Path

import pytest

from tests import faults


def test_three_kills_leave_no_trace(tmp_path: Path) -> None:
    """One before the first checkpoint, two while one is being written."""
    assert faults.main(["--kills=3", f"--log={tmp_path}/log"]) == 0


@pytest.mark.slow
def test_twenty_five_kills_leave_no_trace(tmp_path: Path) -> None:
    assert faults.main(["--kills=25", f"--log={tmp_path}/log", "--seed=1"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    fell = [line["fell"] for line in lines if "kill" in line]
    assert len(fell) == 25
    assert fell.count("inside a save") >= 10 and fell.count("before the first checkpoint") >= 3
