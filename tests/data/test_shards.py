"""A split in shards: the same bytes whoever writes them, and none of a text that changed."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transformer.data import Pair, chunks, open_store, shards
from transformer.data.store import open_chunks
from transformer.errors import UserError


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a shard hold six pairs."""
    monkeypatch.setattr(chunks, "CHUNK", 3)
    monkeypatch.setattr(shards, "CHUNK", 3)
    monkeypatch.setattr(shards, "CHUNKS", 2)


def pairs(count: int = 32) -> Iterator[Pair]:
    for number in range(count):
        yield Pair(f"la casa {number % 20}", f"the house {number % 20}")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_make_the_bytes_of_one(tokenizer, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert shards.write(whole, pairs(), tokenizer, lambda _: True) == 32
    assert shards.count(32) == 6 and shards.are_whole(whole, 6) and not shards.are_whole(whole, 7)
    for part in (2, 0, 1):
        assert not shards.are_whole(parts, 6)
        assert shards.write(parts, pairs(), tokenizer, lambda n, part=part: n % 3 == part) == 32
    assert contents(parts) == contents(whole) and len(contents(whole)) == 6


def test_shards_make_the_store_that_their_text_makes(tokenizer, tmp_path: Path) -> None:
    shards.write(tmp_path / "s", pairs(), tokenizer, lambda _: True)
    direct = open_store(tmp_path, pairs, tokenizer, key="direct")
    size = tokenizer.size
    read = open_chunks(
        tmp_path / "read", lambda: shards.read(tmp_path / "s", 6, size), vocab_size=size
    )
    assert contents(tmp_path / "direct") == contents(tmp_path / "read")
    assert read.nbytes == direct.nbytes
    np.testing.assert_array_equal(read.problems != 0, np.arange(32) >= 20)  # duplicates
    shards.discard(tmp_path / "s", 6)
    assert contents(tmp_path / "s") == {}


def test_what_is_there_is_not_made_again(
    tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards.write(tmp_path / "s", pairs(), tokenizer, lambda n: n != 3)
    written = []
    write = shards.files.write
    monkeypatch.setattr(
        shards.files,
        "write",
        lambda path, content: (written.append(path.name), write(path, content)),
    )
    shards.write(tmp_path / "s", pairs(), tokenizer, lambda _: True)
    assert written == ["00003.npz"]


def test_nothing_is_left_of_a_text_that_changed(tokenizer, tmp_path: Path) -> None:
    """Which its reader says at its end; what another process had written stays."""

    def changed() -> Iterator[Pair]:
        yield from pairs()
        raise UserError("changed while it was read")

    shards.write(tmp_path / "s", pairs(), tokenizer, lambda n: n == 2)
    with pytest.raises(UserError, match="changed while"):
        shards.write(tmp_path / "s", changed(), tokenizer, lambda _: True)
    assert [*contents(tmp_path / "s")] == ["00002.npz"]


def test_a_corpus_without_pairs(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sentence pairs"):
        shards.write(tmp_path / "s", iter(()), tokenizer, lambda _: True)


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", None])
def test_a_damaged_shard_is_named(tokenizer, tmp_path: Path, damage: bytes | None) -> None:
    shards.write(tmp_path / "s", pairs(), tokenizer, lambda _: True)
    path = tmp_path / "s" / "00004.npz"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(UserError, match=r"00004.npz is missing or damaged"):
        list(shards.read(tmp_path / "s", 6, tokenizer.size))
    content = bytearray((tmp_path / "s" / "00001.npz").read_bytes())
    content[200] ^= 1  # of the ids
    (tmp_path / "s" / "00001.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"00001.npz is missing or damaged"):
        list(shards.read(tmp_path / "s", 6, tokenizer.size))


def test_what_is_no_shard_of_this_tokenizer_is_named(tokenizer, tmp_path: Path) -> None:
    shards.write(tmp_path / "s", pairs(), tokenizer, lambda _: True)
    path = tmp_path / "s" / "00000.npz"
    whole = path.read_bytes()
    with np.load(io.BytesIO(whole)) as arrays:
        good = dict(arrays)

    def packed(**others: np.ndarray) -> bytes:
        content = io.BytesIO()
        np.savez(content, **{**good, **others})
        return content.getvalue()

    alone = io.BytesIO()
    np.save(alone, good["ids"])
    damaged = [
        alone.getvalue(),
        packed(ids=good["ids"][:-1]),
        packed(ids=np.full_like(good["ids"], tokenizer.size)),
        packed(ids=good["ids"].astype(np.int64)),
        packed(lengths=-good["lengths"]),
        packed(lengths=good["lengths"].astype(str)),
        packed(pairs=good["pairs"][:-1]),
        *(whole[:n] + bytes([whole[n] ^ 8]) + whole[n + 1 :] for n in range(30)),
    ]
    for content in damaged:
        path.write_bytes(content)
        try:
            (first, *_) = shards.read(tmp_path / "s", 1, tokenizer.size)
        except UserError as error:
            assert "is missing or damaged" in str(error) and "\n" not in str(error)
        else:  # a byte that nobody reads
            assert all(np.array_equal(getattr(first, name), good[name]) for name in good)
