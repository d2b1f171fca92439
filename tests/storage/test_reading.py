"""One object of a bucket, read as a file."""

import hashlib
from collections.abc import Callable

import pytest

from tests.support.memory_store import Memory
from transformer.storage import ObjectReader, reading
from transformer.storage.address import parse
from transformer.storage.store import Store

ADDRESS = "gs://bucket/corpus/train.en"


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Writes the object."""
    store = Store(Memory())
    monkeypatch.setattr(reading, "open_store", lambda scheme: store)
    monkeypatch.setattr(reading, "PIECE", 10)
    return lambda content: store.write(parse(ADDRESS), content)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 35])
def test_it_is_read_to_its_end(put: Callable[[bytes], None], size: int) -> None:
    content = bytes(range(size))
    put(content)
    with ObjectReader(ADDRESS) as file:
        assert file.size == size and file.readall() == content
    with ObjectReader(ADDRESS) as file:
        digest = hashlib.file_digest(file, "sha256").digest()  # pyright: ignore
    assert digest == hashlib.sha256(content).digest()


def test_one_that_is_replaced_meanwhile_is_no_file(put: Callable[[bytes], None]) -> None:
    put(bytes(40))
    with ObjectReader(ADDRESS) as file:
        assert file.read(10) == bytes(10)
        put(b"another" * 6)
        with pytest.raises(OSError, match="It was replaced while it was read"):
            file.readall()


def test_one_that_is_not_there(put: Callable[[bytes], None]) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        ObjectReader(ADDRESS)
    assert raised.value.strerror == "No such object" and raised.value.filename == ADDRESS
