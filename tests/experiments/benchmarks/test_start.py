"""The benchmark of starting: what it takes for the first step, and what it writes."""

import json
import sys
import time
from pathlib import Path

import pytest

from experiments.benchmarks import start

STUB = """
import sys, time
command = sys.argv[1]
print(sys.argv[1:], sys.stdin.read(), file=open({log!r}, "a"))
if command == "train":
    print("step 1/1  loss 7.0", file=sys.stderr, flush=True)
    time.sleep(0.3)
    print("programs: 3 compiled, 4 from the cache, in 0.1 s", file=sys.stderr)
sys.exit(command == {fails!r})
"""


def stub(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> Path:
    """Puts a program that says what it was asked in the place of ours."""
    program, log = folder / "stub.py", folder / "log"
    program.write_text(STUB.format(log=str(log), fails=fails))
    monkeypatch.setattr(start, "PROGRAM", (sys.executable, str(program)))
    return log


def test_each_is_measured_tabled_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    log = stub(tmp_path, monkeypatch)
    began = time.perf_counter()
    stepped = start.Start.of("train", cache=tmp_path).seconds
    assert stepped < time.perf_counter() - began - 0.3, "what comes after it does not count"
    log.unlink()
    start.main(["--rounds=2", f"--json={tmp_path}/start.json"])
    result = json.loads((tmp_path / "start.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    assert [*rows] == ["help", "train", "translate", "train, nothing kept"]
    assert (rows["train"]["compiled"], rows["train"]["cached"]) == (3, 4)
    assert (rows["help"]["compiled"], rows["help"]["goal"]) == (0, 0.5)
    asked = log.read_text()
    assert asked.count("'train'") == 3 and asked.count("'--help'") == 2
    assert asked.count("la casa roja") == 3 and "(goal: 10.0 s)" in capsys.readouterr().out


def test_a_command_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(tmp_path, monkeypatch, fails="translate")
    with pytest.raises(RuntimeError, match="transformer translate --workdir="):
        start.main(["--rounds=1"])
