"""Runs killed at random moments: see faults.py, which also does this by hand, longer."""

from pathlib import Path

import pytest

from tests import faults


@pytest.mark.slow
def test_three_kills_leave_no_trace(tmp_path: Path) -> None:
    """One before the first checkpoint, two while one is being written."""
    assert faults.main(["--kills=3", f"--log={tmp_path}/log"]) == 0
