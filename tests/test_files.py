"""A file is whole or what it was, whatever happens while it is written."""

import os
import time
from pathlib import Path

import pytest

from transformer import files


def test_what_breaks_off_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    files.write_json(path, {"one": "uno"})
    with pytest.raises(KeyboardInterrupt), files.whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == '{\n  "one": "uno"\n}\n'
    assert os.listdir(path.parent) == ["file.json"]


def test_what_a_killed_writer_left_goes_a_day_later(tmp_path: Path) -> None:
    path = tmp_path / "file[1].json"
    for number in range(2):
        (tmp_path / f".{path.name}.{number:032x}").touch()
    other = tmp_path / f".file1.json.{2:032x}"
    other.touch()
    mine, at_work = sorted(files.leftovers(path))
    long_ago = time.time() - 2 * files.ABANDONED
    for old in (mine, other):
        os.utime(old, (long_ago, long_ago))
    files.write(path, "content")
    assert {*tmp_path.iterdir()} == {path, at_work, other}
