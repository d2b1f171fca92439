"""Source and target are two texts, or the run says otherwise."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment

TSV = "".join(f"la casa {n}\tthe house {n}\n" for n in range(40))
SOURCE = "".join(f"la casa {n}\n" for n in range(40))
TARGET = "".join(f"the house {n}\n" for n in range(40))


def checked(folder: Path, source: str, target: str, split: str = "train", **data: Any) -> None:
    tree = get_config().to_dict()
    names = {"train_source": "s", "train_target": "t", "dev_source": "s", "dev_target": "t"}
    names |= {f"{split}_source": source, f"{split}_target": target}
    tree["data"] |= {"source": "text", **data}
    tree["data"]["text"] |= {key: str(folder / name) for key, name in names.items()}
    Experiment(from_dict(tree), folder / "run").data.check_corpus()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s").write_text(SOURCE)
    (tmp_path / "t").write_text(TARGET)
    (tmp_path / "tsv").write_text(TSV)
    (tmp_path / "copy").write_text(TSV)
    os.symlink(tmp_path / "tsv", tmp_path / "link")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "dev", "test"])
@pytest.mark.parametrize("target", ["tsv", "copy", "link", "../{}/tsv"])
def test_one_text_on_both_sides_is_refused(folder: Path, split: str, target: str) -> None:
    keys = f"data.text.{split}_source and data.text.{split}_target"
    said = rf"{keys} are .*in data\.text\.{split}\).*data\.side=source"
    with pytest.raises(UserError, match=said):
        checked(folder, "tsv", target.format(folder.name), split)
    checked(folder, "tsv", target.format(folder.name), split, side="source")


def test_a_file_of_both_sides_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gzip.open(folder / "b.gz", "wb") as file:
        file.write(TSV.encode())
    checked(folder, "s", "t")
    (folder / "few").write_text(TARGET.replace("the house", "the\thouse", 7))
    (folder / "columns").write_text(TSV.replace("\t", "\t\t"))
    for quiet in ("few", "columns"):
        checked(folder, "s", quiet)
    assert not caplog.text
    checked(folder, "s", "b.gz")
    assert "40 of its first 40 lines are two texts with a tab between them" in caplog.text
    assert f"data.text.train_target={folder / 'b.gz'}" in caplog.text


def test_one_language_twice_is_refused(tmp_path: Path) -> None:
    tree = get_config().to_dict()
    tree["data"]["source"] = "tfds"
    tree["data"]["tfds"]["target_language"] = "en"
    with pytest.raises(UserError, match=r"source_language and .* are both 'en': name two"):
        Experiment(from_dict(tree), tmp_path).data.check_corpus()
