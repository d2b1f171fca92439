"""An object of a bucket as a file that is read from its beginning to its end, in little memory."""

import io
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from transformer.storage.address import parse
from transformer.storage.store import Changed
from transformer.storage.stores import open_store

PIECE = 8 * 2**20  # bytes asked for at a time; the next are on their way meanwhile


class ObjectReader(io.RawIOBase):
    """The bytes of one version of an object, read forwards.

    Args:
        text: its address, `gs://bucket/corpus/train.en.gz`.

    Raises:
        FileNotFoundError: there is none.
        OSError: while it is read: it was replaced.
        UserError: the store does not answer, or refuses.
    """

    def __init__(self, text: str):
        self._pieces = self._read()
        self._piece = memoryview(b"")
        self._address = parse(text)
        self._store = open_store(self._address.scheme)
        try:
            self.size, self._version = self._store.size(self._address)
        except FileNotFoundError:
            raise FileNotFoundError(2, "No such object", text) from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _read(self) -> Generator[bytes]:
        with ThreadPoolExecutor(1) as ahead:
            coming: Future[bytes] | None = None
            for start in range(0, self.size, PIECE):
                arguments = self._address, start, min(start + PIECE, self.size), self._version
                before, coming = coming, ahead.submit(self._store.read_range, *arguments)
                if before:
                    yield self._answer(before)
            if coming:
                yield self._answer(coming)

    def _answer(self, coming: Future[bytes]) -> bytes:
        try:
            return coming.result()
        except Changed:
            raise OSError(5, "It was replaced while it was read", str(self._address)) from None

    def close(self) -> None:
        self._pieces.close()
        self._piece = memoryview(b"")
        super().close()
