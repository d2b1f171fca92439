"""Which folder an experiment file imports from: its own repository, never just any above it."""

import os
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from transformer.config import experiment_code, experiment_files
from transformer.errors import UserError


def place(folder: Path) -> Path:
    """A folder with `experiments/base.py`."""
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "base.py").touch()
    return folder


def config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "exp.py").touch()
    return folder / "exp.py"


def test_what_somebody_put_above_a_file_is_not_run(tmp_path: Path) -> None:
    place(tmp_path)
    assert experiment_code.repository_root(config(tmp_path / "alice")) == ROOT


def test_its_own_repository_is_its_root_from_any_depth(tmp_path: Path) -> None:
    place(tmp_path)
    for mark in (".git", "setup.cfg", "pyproject.toml"):
        repository = place(tmp_path / f"repository with {mark}")
        (repository / mark).touch()
        path = config(repository / "studies" / "deep")
        assert experiment_code.repository_root(path) == repository


def test_beyond_its_own_repository_nothing_is_looked_for(tmp_path: Path) -> None:
    (place(tmp_path) / ".git").touch()
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "setup.cfg").touch()
    assert experiment_code.repository_root(config(tmp_path / "alice" / "x")) == ROOT


def test_a_file_beside_base_has_the_folder_that_both_lie_in(tmp_path: Path) -> None:
    assert experiment_code.repository_root(config(place(tmp_path) / "experiments")) == tmp_path


@pytest.mark.parametrize("part", [".", "experiments", "experiments/base.py"])
@pytest.mark.parametrize("way", ["owned", "writable"])
@pytest.mark.parametrize("folder", ["alice", "experiments"])
def test_what_a_stranger_can_write_is_not_run(
    tmp_path: Path, part: str, way: str, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    (place(tmp_path) / ".git").touch()
    path = config(tmp_path / folder)
    if way == "owned" and (os.getuid() != 0 or folder == part == "experiments"):
        pytest.skip("needs root; or the owner of the file's folder, who is trusted")
    if way == "owned":
        os.chown(tmp_path / part, 12_345, 12_345)
    else:
        (tmp_path / part).chmod(0o1777)
    assert experiment_code.repository_root(path) == ROOT
    assert "is passed over: others can write" in caplog.text


def test_a_link_has_the_repository_of_what_it_leads_to(tmp_path: Path) -> None:
    theirs, ours = place(tmp_path / "theirs"), place(tmp_path / "ours")
    link = theirs / "experiments" / "link.py"
    link.symlink_to(config(ours / "experiments"))
    assert experiment_code.repository_root(link) == ours


def test_an_experiment_file_knows_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from experiments import base\n"
        "def get_config(variant=''):\n"
        "    config = base.get_config()\n"
        "    config.data.cache_dir = __file__\n"
        "    return config\n",
        encoding="utf-8",
    )
    assert experiment_files.load_config(str(path), []).data.cache_dir == str(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.model.headz = 3", "line 4: unknown key 'headz': did you mean 'heads'?"),
        ("config.model.nokey", "line 4: unknown key 'nokey': transformer/config declares them all"),
        ("config.data.mixture.a = 3", "line 4: unknown key 'a': transformer/config declares"),
        ("config.training.steps = 1.5", "line 4: steps is '1.5'; it must be of type int"),
        ("config.model = 3", "line 4: model is '3'; it must be of type ConfigDict"),
        ("config.update({'model': {'q': 1}})", "line 4: unknown key 'q'"),
        ("{}['mine']", "line 4: KeyError: 'mine'"),  # the file's own, no key of ours
        ("raise ValueError", "line 4: ValueError"),
        ("raise ValueError('two\\nlines')", "line 4: two lines"),
        ("open('nowhere')", "line 4: FileNotFoundError: [Errno 2] No such file or directory"),
        ("raise SystemExit", "line 4: SystemExit"),  # which was exit code 0, and nothing done
        ("import faulty_neighbour", "line 4: ModuleNotFoundError"),
    ],
)
def test_a_faulty_file_s_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.py"
    head = (
        "from experiments import base\ndef get_config(variant=''):\n    config = base.get_config()"
    )
    path.write_text(f"{head}\n    {line}\n    return config\n")
    with pytest.raises(UserError) as caught:
        experiment_files.load_config(str(path), [])
    assert str(caught.value).startswith(f"--config={path}: {message}")
    assert "\n" not in str(caught.value)
