"""Objects in a bucket: read, written whole, written only over what one has read, listed, deleted.

A store has no rename, no append and no lock. What it has is the conditional write, on which all of
`transformer.storage` is built: an object is replaced only if it is still of the version that was
read. What a store answers when it is busy or gone for a while is tried again, with a bound.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from transformer.errors import UserError
from transformer.storage.address import Address

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds that a store may be unreachable before a run ends
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 16.0  # seconds between two tries: twice as long each time
LOOKS = 10  # times that a reader looks again for what is being replaced
SAID = 5.0  # seconds after which it is said that a store does not answer

AT_ONCE = 8  # requests to delete

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """Which content of an object was read, and when it was written, by the store's own clock."""

    id: str  # the store's: GCS's generation, S3's ETag
    age: float  # seconds from its writing to the answer that told of it


class Changed(Exception):
    """An object is no longer of the version that was to be replaced."""


class Unreachable(Exception):
    """A store did not answer, or is too busy: the same request may succeed later."""


class Usage:
    """How often a store was asked, and how many bytes went there and back; in words by `str`."""

    def __init__(self, requests: int = 0, written: int = 0, read: int = 0):
        self.requests, self.written, self.read = requests, written, read
        self._lock = threading.Lock()

    def add(self, requests: int = 0, written: int = 0, read: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.written += written
            self.read += read

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests, self.written + other.written, self.read + other.read
        )

    def __str__(self) -> str:
        written, read = (f"{n / 2**20:,.1f} MiB" for n in (self.written, self.read))
        return f"{self.requests:,} requests, {written} written, {read} read"


class Away:
    """For how long a store has answered no request of this process."""

    def __init__(self) -> None:
        self._began = self._last = -float("inf")  # monotonic seconds

    def missed(self) -> float:
        """Notes a request without an answer; seconds since the first of an unbroken row of them."""
        now = time.monotonic()
        if now - self._last > 2.0 * LONGEST_PAUSE:
            self._began = now
        self._last = now
        return now - self._began

    def over(self) -> None:
        """A request was answered."""
        self._last = -float("inf")


class Patience:
    """How long a request that fails is sent again, and what is said meanwhile.

    Args:
        name: of what is asked for.
        away: what is known of the store from other requests.
    """

    def __init__(self, name: object, away: "Away | None" = None):
        self._name, self._said = name, False
        self._away, self._next = away or Away(), FIRST_PAUSE
        self._began = time.monotonic()

    def pause(self, error: Unreachable) -> float:
        """How many seconds to wait before the next try.

        Raises:
            UserError: it has been tried for long enough.
        """
        waited, pause = time.monotonic() - self._began, self._next
        waited = max(waited, self._away.missed())
        if waited + pause > PATIENCE:
            raise UserError(
                f"{self._name}: the store did not answer for {waited:.0f} s ({error}): look "
                "whether it can be reached, and start the same command again"
            ) from error
        if waited > SAID and not self._said:
            log.warning("%s does not answer (%s): trying for %.0f s", self._name, error, PATIENCE)
            self._said = True
        self._next = min(2.0 * pause, LONGEST_PAUSE)
        return pause

    def end(self) -> None:
        """There is an answer."""
        self._away.over()
        if self._said:
            log.warning("%s answers again", self._name)


@runtime_checkable
class Client(Protocol):
    """One kind of store, each request once.

    Each call may raise Unreachable, FileNotFoundError or UserError.
    """

    def usage(self) -> Usage:
        """What this process has asked it, and what libraries have that speak to it themselves."""
        ...

    def read(self, address: Address) -> bytes: ...

    def read_version(self, address: Address) -> tuple[bytes, Version]: ...

    def size(self, address: Address) -> tuple[int, str]:
        """An object's bytes, and its version's id."""
        ...

    def read_range(self, address: Address, start: int, stop: int, version: str) -> bytes:
        """Bytes start to stop of this version. Raises Changed where there is another."""
        ...

    def write(self, address: Address, content: bytes) -> None: ...

    def replace(self, address: Address, content: bytes, version: Version | None) -> str:
        """Writes over this version, or (None) where there is nothing; the new version's id.

        Raises:
            Changed: something else is there.
        """
        ...

    def list(self, address: Address) -> dict[Address, tuple[int, float]]:
        """Size and age of each object whose key begins with the address and a slash."""
        ...

    def delete(self, address: Address) -> None: ...


class Store:
    """A bucket's store, with patience."""

    def __init__(self, client: Client):
        self._client, self._away = client, Away()

    def usage(self) -> Usage:
        """What this process has asked it."""
        return self._client.usage()

    def read(self, address: Address) -> bytes:
        """An object's content. Raises FileNotFoundError where there is none."""
        return self._patiently(address, self._client.read, address)

    def read_version(self, address: Address) -> tuple[bytes, Version] | None:
        """An object's content and version; None where there is none."""
        try:
            return self._patiently(address, self._client.read_version, address)
        except FileNotFoundError:
            return None

    def size(self, address: Address) -> tuple[int, str]:
        """An object's bytes, and its version's id. Raises FileNotFoundError."""
        return self._patiently(address, self._client.size, address)

    def read_range(self, address: Address, start: int, stop: int, version: str) -> bytes:
        """Bytes start to stop of this version of an object.

        Raises:
            Changed: another version is there, or none.
        """
        return self._patiently(address, self._client.read_range, address, start, stop, version)

    def write(self, address: Address, content: bytes) -> None:
        """Writes an object, whole or not at all, over whatever is there."""
        self._patiently(address, self._client.write, address, content)

    def replace(self, address: Address, content: bytes, version: Version | None) -> Version:
        """Writes an object only over this version of it, or (None) only where there is none.

        The content must never have been written there before: where the answer was lost, it tells
        that the write succeeded all the same.

        Raises:
            Changed: something else is there now.
        """
        tried = False

        def once() -> str:
            nonlocal tried
            try:
                return self._client.replace(address, content, version)
            except Changed:
                if tried:  # perhaps by us: the answer to an earlier try was lost
                    now, is_now = self._client.read_version(address)
                    if now == content:
                        return is_now.id
                raise
            finally:
                tried = True

        return Version(self._patiently(address, once), 0.0)

    def list(self, address: Address) -> dict[Address, tuple[int, float]]:
        """Size in bytes and age in seconds of each object below an address."""
        return self._patiently(address, self._client.list, address)

    def delete(self, addresses: Iterable[Address]) -> None:
        """Deletes objects, which may be gone already, several at a time."""

        def one(address: Address) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._patiently(address, self._client.delete, address)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, addresses))

    def _patiently(self, address: Address, request: Callable[..., T], *arguments: Any) -> T:
        patience = Patience(address, self._away)
        while True:
            try:
                answer = request(*arguments)
            except Unreachable as error:
                time.sleep(patience.pause(error))
            else:
                patience.end()
                return answer
