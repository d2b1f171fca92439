"""Options of the command line that are wrong, and output that cannot be written."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import ROOT, error_line
from transformer.__main__ import main


@pytest.mark.parametrize("text", ["0", "two", "1.5", "-1", "", "9" * 5_000])
def test_a_number_of_lines_is_above_0(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["translate", "--workdir=nowhere", f"--chunk={text}"])
    errors = capsys.readouterr().err
    assert "--chunk: " in errors and "is no whole number above 0" in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("option", [f"--config={ROOT}/experiments/base.py", "--help"])
def test_a_full_standard_output_is_named(option: str) -> None:
    command = [sys.executable, "-m", "transformer", "params", option]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert error_line(ended.stderr) == "[Errno 28] No space left on device: 'standard output'"
