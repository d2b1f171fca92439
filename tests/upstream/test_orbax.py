"""How libraries reach a run's folder, what is read back, and who keeps a checkpoint in use."""

import contextlib
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from transformer import files
from transformer.checkpoints.checkpoints import Checkpoints
from transformer.checkpoints.state import TrainState
from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.upstream import orbax

CONFIG = CheckpointsConfig(every=10, keep_last=1, keep_best=0, average=1)


def save(kept: Checkpoints, step: int) -> None:
    number = jnp.asarray(step, jnp.int32)
    state = TrainState(number, number, {"a": jnp.ones(3), "b": {"c": number}}, (), (), number)
    kept.save(state, {"step": step, "stopped": False}, None)
    kept.wait()


def opened(folder: Path) -> contextlib.closing[Checkpoints]:
    return contextlib.closing(Checkpoints(folder, CONFIG, lower_is_better=True))


@pytest.mark.parametrize(
    "name", ["a[1]", "a\\b", "logs:", "a*b", "w\udce9", "é", "a.orbax-checkpoint-tmp"]
)
def test_an_odd_folder_is_reached_by_a_plain_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    reached = orbax.LibraryPath(folder)
    assert orbax.PLAIN.fullmatch(str(reached.path)) and reached.path.samefile(folder)
    assert reached.with_own_name(f"no {reached.path}/x") == f"no {folder}/x"
    reached.close()
    assert not reached.path.exists()


def test_a_plain_folder_is_reached_by_its_own_path(tmp_path: Path) -> None:
    assert orbax.LibraryPath(tmp_path).path == tmp_path


@pytest.mark.parametrize("path", ["/gs/a", "/s3/a", "/az/b/c", "/hf/a"])
def test_a_mount_with_the_name_of_a_bucket_is_not_plain(path: str) -> None:
    assert not orbax.PLAIN.fullmatch(path) and orbax.PLAIN.fullmatch(f"/mnt{path}")


def test_where_there_is_no_way_to_an_odd_folder_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orbax, "OPEN_FILES", tmp_path / "none")
    (tmp_path / "a[1]").mkdir()
    with pytest.raises(UserError, match="take another --workdir"):
        orbax.LibraryPath(tmp_path / "a[1]")


def test_a_checkpoint_that_cannot_be_read_back_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of its arrays are never put together, as Orbax did under a path with brackets."""
    real = orbax.require_readable

    def lose(step: Path) -> None:
        (step / "params" / "manifest.ocdbt").unlink(missing_ok=True)  # an item has none of its own
        real(step)

    monkeypatch.setattr(orbax, "require_readable", lose)
    with opened(tmp_path / "checkpoints") as kept:
        with pytest.raises(UserError, match="params cannot be read back"):
            save(kept, 10)
        monkeypatch.setattr(orbax, "require_readable", real)
        assert not (tmp_path / "checkpoints" / "10").exists()


def test_an_array_that_is_missing_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path / "checkpoints") as kept:
        save(kept, 10)
    step = tmp_path / "checkpoints" / "10"
    orbax.require_readable(step)
    shutil.rmtree(step / "params")
    shutil.copytree(step / "rest", step / "params")
    shutil.copy(step / "rest" / "_METADATA", step / "params" / "_METADATA")
    orbax.require_readable(step)
    described = (step / "params" / "_METADATA").read_text(encoding="utf-8")
    named = described.replace('"step"', '"stop"')
    (step / "params" / "_METADATA").write_text(named, encoding="utf-8")
    with pytest.raises(OSError, match="has no array stop"):
        orbax.require_readable(step)


def test_a_checkpoint_stays_as_long_as_it_is_read(tmp_path: Path) -> None:
    with opened(tmp_path / "checkpoints") as kept:
        save(kept, 10)
        with files.reading(tmp_path / "checkpoints" / "10"):
            save(kept, 20)
            assert kept.steps == [10, 20]
        save(kept, 30)
        assert kept.steps == [30]
