"""A corpus that is prepared is read as the text itself would be, and not taken for another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import get_config
from transformer.config import Config, from_dict
from transformer.data import prepared
from transformer.errors import UserError
from transformer.prepared_data import PreparedData
from transformer.preparing import prepare


def config(tmp_path: Path, cache: str = "cache", **data: Any) -> Config:
    tree = get_config()
    tree.data.cache_dir = str(tmp_path / cache)
    tree.data.update(data)
    return from_dict(tree.to_dict())


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus, which tests only read."""
    folder = tmp_path_factory.mktemp("module")
    assert prepare(config(folder), folder / "prepared")
    return folder / "prepared"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_run_reads_it_as_it_reads_the_text(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_text = PreparedData(config(tmp_path), tmp_path / "text")
    for name in ("text", "tokens"):
        (tmp_path / name).mkdir()
    there = config(tmp_path, "elsewhere", prepared=str(prepared_folder))
    monkeypatch.setattr("transformer.prepared_data.open_corpus", None)  # no text is read
    of_tokens = PreparedData(there, tmp_path / "tokens")
    of_tokens.check_corpus()
    monkeypatch.undo()
    assert of_tokens.tokenizer.fingerprint == of_text.tokenizer.fingerprint
    for split in ("train", "dev", "test"):
        one, other = of_text.store(split), of_tokens.store(split)
        np.testing.assert_array_equal(one.pairs, other.pairs)
        np.testing.assert_array_equal(one.lengths, other.lengths)
        all_of = np.arange(len(one))
        for side in (0, 1):
            np.testing.assert_array_equal(one.gather(all_of, side), other.gather(all_of, side))
        if split != "train":
            assert [*of_text.corpus.pairs(split)] == [*of_tokens.corpus.pairs(split)]
    with pytest.raises(UserError, match="not its text"):
        next(of_tokens.corpus.pairs("train"))
    batches = [of_text.train_batches, of_tokens.train_batches]
    assert batches[0].batch_digest(5) == batches[1].batch_digest(5)


def test_parts_make_it_whole(tmp_path: Path) -> None:
    prepare(config(tmp_path), tmp_path / "whole")
    for number, cache in ((2, "b"), (1, "a")):
        is_whole = prepare(config(tmp_path, cache), tmp_path / "parts", part=number, of=2)
        assert is_whole == (number == 1)
        assert (tmp_path / "parts" / prepared.INDEX).exists() == is_whole
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    prepare(config(tmp_path), tmp_path / "whole")  # again: it is there
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


def test_another_corpus_is_refused(prepared_folder: Path, tmp_path: Path) -> None:
    folder = prepared_folder
    others: list[tuple[dict[str, Any], str]] = [
        ({"side": "source"}, "prepared with data.side = 'both', here it is 'source'"),
        ({"tokenizer": {"vocab_size": 500}}, "prepared with data.tokenizer.vocab_size"),
        ({"casa_roja": {"train_size": 99}}, "prepared with data.casa_roja.train_size = 200"),
    ]
    for data, reason in others:
        other = config(tmp_path, prepared=str(folder), **data)
        with pytest.raises(UserError, match=reason):
            PreparedData(other, tmp_path).corpus.has("dev")
    with pytest.raises(UserError, match="prepared with other keys, another text"):
        prepare(config(tmp_path, casa_roja={"train_size": 99}), folder)
    with pytest.raises(UserError, match="is prepared already"):
        prepare(config(tmp_path, prepared=str(folder)), tmp_path / "again")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(UserError, match="exists and holds no prepared corpus"):
        prepare(config(tmp_path), tmp_path / "mine")


def test_keys_of_batches_may_differ(prepared_folder: Path, tmp_path: Path) -> None:
    other = config(tmp_path, prepared=str(prepared_folder), max_length=32, shapes=2)
    assert PreparedData(other, tmp_path).corpus.has("train")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "holds no prepared corpus"),
        (b"{}", "is damaged"),
        (b'{"format": 9}', "another version's"),
        (b'{"format": 1, "splits": {}}', "is damaged"),
        (b"\xff", "is damaged"),
    ],
)
def test_what_is_no_prepared_corpus(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / prepared.INDEX).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        PreparedData(config(tmp_path, prepared=str(tmp_path)), tmp_path).corpus.has("train")


def test_tokens_that_do_not_fit_the_disk(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = config(tmp_path, "elsewhere", prepared=str(prepared_folder))
    (tmp_path / "run").mkdir()
    data = PreparedData(there, tmp_path / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"data.cache_dir=.*do not fit"):
        data.store("dev")


def test_parts_of_another_configuration_are_refused(tmp_path: Path) -> None:
    """Else a corpus would have the tokens of one and the text of the other."""
    whole = tmp_path / "corpus"
    assert not prepare(config(tmp_path), whole, part=2, of=2)  # its only shard is the first's
    sizes = {"train_size": 200, "dev_size": 12, "test_size": 11}
    for part in ({}, {"part": 1, "of": 2}):
        with pytest.raises(UserError, match="prepared with other keys"):
            prepare(config(tmp_path, casa_roja=sizes), whole, **part)
    assert prepare(config(tmp_path), whole, part=1, of=2)


@pytest.mark.parametrize("name", ["train", "dev"])
def test_what_another_has_damaged_is_not_called_whole(tmp_path: Path, name: str) -> None:
    """The cache has the tokens already: the shards are read back all the same."""
    whole = tmp_path / "corpus"
    prepare(config(tmp_path), whole)
    (whole / "prepared.json").unlink()
    path = next(whole.glob(f"{name}-*")) / "00000.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"00000.npz is missing or damaged"):
        prepare(config(tmp_path), whole)
    assert not (whole / "prepared.json").exists()


def test_text_that_was_changed_is_damaged(tmp_path: Path) -> None:
    """A line of it is missing: the tokens are of one more pair."""
    whole = tmp_path / "corpus"
    prepare(config(tmp_path), whole)
    lines = (whole / "dev.jsonl").read_bytes().splitlines(keepends=True)
    (whole / "dev.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(UserError, match=r"dev.jsonl is missing or damaged"):
        list(prepared.PreparedCorpus(whole, config(tmp_path).data).pairs("dev"))
