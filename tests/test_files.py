"""A file is whole or what it was, whatever happens while it is written."""

import errno
import fcntl
import os
import subprocess
import sys
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


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    """It takes what is left of that path alone, as others may look like it; held ones stay."""
    killed, held = (tmp_path / f".file[1].json.{number:032x}" for number in (1, 3))
    others = [tmp_path / f".notes.{2:032x}", tmp_path / f".album.{4:032x}"]
    others[1].mkdir()
    for path in (killed, held, others[0], others[1] / "content"):
        path.touch()
    long_ago = time.time() - 2 * files.ABANDONED
    for old in (killed, held, *others):
        os.utime(old, (long_ago, long_ago))
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.write(tmp_path / "file[1].json", "content")
    assert {*tmp_path.iterdir()} == {tmp_path / "file[1].json", held, *others}
    assert (others[1] / "content").exists()


def test_a_folder_that_is_being_built_is_swept_by_nobody(tmp_path: Path) -> None:
    with files.building(tmp_path / "store") as unfinished:
        long_ago = time.time() - 2 * files.ABANDONED
        os.utime(unfinished, (long_ago, long_ago))
        with files.building(tmp_path / "another"):
            assert unfinished.exists()
    assert not any(tmp_path.iterdir())


def test_what_a_killed_process_was_building_goes_with_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from transformer import files\n"
        "with files.building(Path(sys.argv[1])): print('here', flush=True); time.sleep(99)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "store"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        (left,) = tmp_path.iterdir()
        files.sweep(tmp_path)
        assert left.exists()
        process.kill()
    long_ago = time.time() - 60
    os.utime(left, (long_ago, long_ago))
    files.sweep(tmp_path)
    assert not left.exists()


def test_what_is_deleted_is_held_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who has just made it, and was slow to hold it, waits and finds it gone."""
    left = tmp_path / f".store.{0:032x}"
    left.mkdir()
    os.utime(left, (0, 0))
    held = []
    monkeypatch.setattr(files, "discard", lambda path: held.append(files.is_read(path)))
    files.sweep(tmp_path)
    assert held == [True]


def test_what_cannot_be_written_names_the_file_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("good", encoding="utf-8")
    with pytest.raises(OSError) as caught, files.whole(tmp_path / "file") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "good"
    assert len([*tmp_path.iterdir()]) == 1
