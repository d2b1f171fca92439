"""Places of a run that is killed, on a disk or in a bucket, and what can be asked of it there."""

import contextlib
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.support.object_stores import BUCKET, Proxy
from tests.support.processes import COMMAND, ROOT, run
from transformer.storage.manifest import DATA, NAME, Manifest

TERM = 5  # seconds without a sign of life after which an owner in a bucket is dead
SHORT_TERMS = (sys.executable, str(ROOT / "tests" / "support" / "short_terms.py"), str(TERM))


class Place(Protocol):
    """A place of one run.

    Attributes:
        workdir: what the command is given.
        program: what its processes are started by.
        pause: seconds from one look to the next.
        saves: seconds that a save takes here, at least.
        starts: seconds that a process takes to its first step, about.
        lag: steps by which `last_step` is late.
    """

    workdir: str
    program: Sequence[str]
    pause: float
    saves: float
    starts: float
    lag: int

    def unfinished(self) -> set[object]:
        """Saves that are going on, or that were broken off and nobody has cleared away."""
        ...

    def whole(self) -> list[int]:
        """The steps of which there are checkpoints."""
        ...

    def last_step(self) -> int:
        """How many steps the metrics tell of."""
        ...

    def brought(self, folder: Path) -> Path:
        """The run on a disk: where it lies, or in this folder."""
        ...

    def remove(self) -> None: ...


class OnDisk:
    """A run in a folder of a disk."""

    program: Sequence[str] = COMMAND
    pause, saves, starts, lag = 0.0005, 0.06, 1.5, 0

    def __init__(self, folder: Path):
        self._folder, self.workdir = folder, str(folder)

    def unfinished(self) -> set[object]:
        found = set()
        for path in (self._folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            with contextlib.suppress(FileNotFoundError):  # it has just become whole
                found.add((path.name, path.stat().st_ino))  # the next may have the same name
        return found

    def whole(self) -> list[int]:
        paths = (self._folder / "checkpoints").glob("*")
        return sorted(int(path.name) for path in paths if path.name.isdigit())

    def last_step(self) -> int:
        path = self._folder / "metrics.jsonl"
        return _steps(path.read_bytes() if path.exists() else b"")

    def brought(self, folder: Path) -> Path:
        return self._folder

    def remove(self) -> None:
        shutil.rmtree(self._folder)


class InBucket:
    """A run in a bucket, which is asked for without the faults that the run meets.

    A save there takes a second or more, and lines of metrics are seen after a third of a term.
    """

    program: Sequence[str] = SHORT_TERMS
    pause, saves, starts, lag = 0.1, 1.0, 6.0, 13
    _numbers = itertools.count()

    def __init__(self, proxy: Proxy, cache: Path):
        self._proxy, self._cache = proxy, cache
        self._key = f"runs/{next(self._numbers)}"
        self.workdir = f"gs://{BUCKET}/{self._key}"

    def unfinished(self) -> set[object]:
        # What they hold first: a save that ends meanwhile is none of these.
        keys = [name.split("/") for name in self._proxy.names(f"{self._key}/{DATA}/")]
        start = len(self._key.split("/"))
        saves = {"/".join(k[start : start + 4]) for k in keys if k[start + 2] == "checkpoints"}
        manifest = self.manifest()
        named = {entry.folder for entry in manifest.entries.values()}
        last = max(_checkpoints(manifest), default=0)  # what is retired, and deleted, is older
        return {save for save in saves - named if int(save.split(".")[-1]) > last}

    def whole(self) -> list[int]:
        return _checkpoints(self.manifest())

    def last_step(self) -> int:
        entry = self.manifest().entries.get("metrics.jsonl")
        pieces = entry.pieces if entry else ()
        return _steps(b"".join(self._content(piece.key) for piece in pieces))

    def brought(self, folder: Path) -> Path:
        code, _, errors = run(
            *("copy", f"--from={self.workdir}", f"--to={folder}"), cache=self._cache, timeout=1_200
        )
        assert code == 0, errors
        return folder

    def remove(self) -> None:
        """Does nothing: the next run has another name, and the store is in memory."""

    def manifest(self) -> Manifest:
        content = self._content(NAME)
        return Manifest.decode(content) if content else Manifest()

    def unnamed(self) -> set[str]:
        """The keys of objects that the manifest does not name."""
        pieces, folders = self.manifest().keys()
        start = len(f"{self._key}/")
        keys = {name[start:] for name in self._proxy.names(f"{self._key}/{DATA}/")}
        return {key for key in keys - pieces if not key.startswith(folders)}

    def _content(self, key: str) -> bytes:
        return self._proxy.content(f"{self._key}/{key}") or b""


def _checkpoints(manifest: Manifest) -> list[int]:
    parts = [name.split("/") for name in manifest.entries]
    return sorted(int(rest[0]) for first, *rest in parts if first == "checkpoints")


def _steps(lines: bytes) -> int:
    return sum(b'"kind": "train"' in line for line in lines.split(b"\n"))
