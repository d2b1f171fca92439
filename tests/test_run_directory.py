"""What a run directory takes, and what it refuses."""

import json
from pathlib import Path

import pytest

from tests.support.tiny import get_config
from transformer import run_directory
from transformer.config import from_dict
from transformer.errors import UserError

CONFIG = from_dict(get_config().to_dict())


def begin(workdir: Path) -> None:
    with run_directory.acquire(workdir, CONFIG):
        pass


def test_a_start_that_was_killed_at_once_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / f".config.json.{7:032x}").write_text("{")
    begin(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG.as_dict()


def test_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists and is no run directory"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_to_what_is_only_told_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path)
    starts = tmp_path / "environment.json"
    begin(tmp_path)
    assert len(json.loads(starts.read_text())) == 2
    starts.write_text("")
    begin(tmp_path)
    assert len(json.loads(starts.read_text())) == 1
    assert "environment.json is damaged" in caplog.text


def test_another_content_is_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    run_directory.require_same(tmp_path, "dev set", "1f", "its text")
    run_directory.require_same(tmp_path, "train set", "2f", "its text")
    run_directory.require_same(tmp_path, "dev set", "1f", "its text")
    with pytest.raises(UserError, match=r"the dev set is not the one .* bring its text back"):
        run_directory.require_same(tmp_path, "dev set", "2f", "its text")
