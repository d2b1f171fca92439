"""A store in this process, which keeps to the contract of `storage.store.Client` to the letter."""

import dataclasses
import time

from transformer.storage.address import Address
from transformer.storage.store import Changed, Unreachable, Usage, Version


@dataclasses.dataclass
class Kept:
    content: bytes
    generation: int
    written: float


class Memory:
    """Objects by address.

    Attributes:
        clock: its own time in seconds.
        failures: what the next requests do: "busy" before anything is done, "lost" after it.
    """

    def __init__(self) -> None:
        self.objects: dict[Address, Kept] = {}
        self.generation = 0
        self.late = 0.0
        self.failures: list[str] = []
        self.written: list[Address] = []
        self.asked = Usage()

    @property
    def clock(self) -> float:
        return time.monotonic() + self.late

    def usage(self) -> Usage:
        return self.asked

    def read(self, address: Address) -> bytes:
        return self.read_version(address)[0]

    def read_version(self, address: Address) -> tuple[bytes, Version]:
        self._fail()
        if address not in self.objects:
            raise FileNotFoundError(str(address))
        kept = self.objects[address]
        return kept.content, Version(str(kept.generation), self.clock - kept.written)

    def size(self, address: Address) -> tuple[int, str]:
        content, version = self.read_version(address)
        return len(content), version.id

    def read_range(self, address: Address, start: int, stop: int, version: str) -> bytes:
        content, now = self.read_version(address)
        if now.id != version:
            raise Changed
        return content[start:stop]

    def write(self, address: Address, content: bytes) -> None:
        self._put(address, content)

    def replace(self, address: Address, content: bytes, version: Version | None) -> str:
        now = self.objects.get(address)
        if (str(now.generation) if now else None) != (version.id if version else None):
            raise Changed
        return self._put(address, content)

    def list(self, address: Address) -> dict[Address, tuple[int, float]]:
        self._fail()
        return {
            key: (len(kept.content), self.clock - kept.written)
            for key, kept in self.objects.items()
            if key.key.startswith(f"{address.key}/")
        }

    def delete(self, address: Address) -> None:
        self._fail()
        if self.objects.pop(address, None) is None:
            raise FileNotFoundError(str(address))

    def _put(self, address: Address, content: bytes) -> str:
        lost = self.failures and self.failures[0] == "lost"
        if not lost:
            self._fail()
        self.generation += 1
        self.objects[address] = Kept(content, self.generation, self.clock)
        self.written.append(address)
        if lost:
            self._fail()
        return str(self.generation)

    def _fail(self) -> None:
        self.asked.add(requests=1)
        if self.failures:
            raise Unreachable(self.failures.pop(0))
