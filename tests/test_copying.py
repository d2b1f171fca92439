"""A run directory is copied whole, and not into itself."""

from pathlib import Path

import pytest

from tests.support.memory_store import Memory
from tests.support.tiny import get_config
from transformer import files
from transformer.config import from_dict
from transformer.copying import copy
from transformer.errors import UserError
from transformer.storage import BucketPath
from transformer.storage.address import Address
from transformer.storage.folder import Folder
from transformer.storage.store import Store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory that has nothing but its configuration."""
    files.write_json(tmp_path / "run" / "config.json", from_dict(get_config().to_dict()).as_dict())
    return tmp_path / "run"


def test_a_copy_inside_the_run_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"/run/copy lies inside .*/run: take another --to"):
        copy(run, run / "copy")
    assert not (run / "copy").exists()


def test_the_folder_that_one_is_in_is_copied(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in a bucket is no path below it."""
    monkeypatch.chdir(run)
    bucket = BucketPath(Folder(Address("gs", "bucket", "copy"), Store(Memory())))
    copy(Path(), bucket)
    assert bucket.root.names() == ["config.json"]
    assert (bucket / "config.json").read_bytes() == (run / "config.json").read_bytes()
