"""What a folder in a bucket holds: one small object, the only one that is ever written over.

`MANIFEST.json` names for each file of the folder the objects that hold its bytes, and the folder's
owner. A file is there once the manifest names it, and is another once the manifest names another
object: no object is written twice, so that a reader sees one content or the other, and a writer
that was killed leaves objects that nobody reads. The manifest itself is replaced by a conditional
write, so that nobody writes over what he has not seen.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformer.checked_json import Damaged, as_json, parse_json

NAME = "MANIFEST.json"
DATA = "data"  # below which all other objects lie
FORMAT = 1


@dataclass(frozen=True)
class Piece:
    """An object, and what it must hold."""

    key: str  # below the folder's address
    size: int
    sha256: str

    @classmethod
    def of(cls, key: str, content: bytes) -> "Piece":
        return cls(key, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Entry:
    """A file, as its pieces one after another; or a folder that a library has written by itself."""

    pieces: tuple[Piece, ...] = ()
    folder: str = ""  # what the keys of its objects begin with, below the folder's address
    objects: int = 0  # how many a folder has


@dataclass(frozen=True)
class Owner:
    """Who may change a folder."""

    id: str  # another for each process
    name: str  # for people: machine and process
    since: float  # seconds since 1970, by its own clock


@dataclass(frozen=True)
class Manifest:
    """The content of a folder, and its owner.

    Attributes:
        entries: by name, "checkpoints/100" for a file or folder below another.
        owner: None: nobody's now.
        token: of the newest owner, higher than of each before (a fencing token): its objects' keys
            begin with it.
        writes: how often the manifest was written, so that no content comes twice.
        writer: which process wrote it.
    """

    entries: Mapping[str, Entry] = dataclasses.field(default_factory=dict)
    owner: Owner | None = None
    token: int = 0
    writes: int = 0
    writer: str = ""

    def encode(self) -> bytes:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return (as_json(content, indent=1) + "\n").encode()

    @classmethod
    def decode(cls, content: bytes) -> "Manifest":
        """Raises Damaged where it is none of ours."""
        tree = parse_json(content)
        try:
            if tree["format"] != FORMAT:
                raise Damaged(f"it is of format {tree['format']!r}, which is not known here")
            return cls(
                {name: _entry(entry) for name, entry in tree["entries"].items()},
                Owner(**tree["owner"]) if tree["owner"] else None,
                int(tree["token"]),
                int(tree["writes"]),
                str(tree["writer"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, Damaged):
                raise
            raise Damaged(f"it is no manifest ({error!r})") from error

    def with_entries(self, more: Mapping[str, Entry]) -> "Manifest":
        return dataclasses.replace(self, entries={**self.entries, **more})

    def without(self, names: Iterable[str]) -> "Manifest":
        """Without these files, and these folders with all in them."""
        gone = tuple(names)
        entries = {n: e for n, e in self.entries.items() if not any(is_in(n, g) for g in gone)}
        return dataclasses.replace(self, entries=entries)

    def renamed(self, names: Mapping[str, str]) -> "Manifest":
        """Gives files and folders, named by the keys, the names that are the values."""

        def now(name: str) -> str:
            for old, new in names.items():
                if is_in(name, old):
                    return new + name[len(old) :]
            return name

        return dataclasses.replace(self, entries={now(n): e for n, e in self.entries.items()})

    def keys(self) -> tuple[set[str], tuple[str, ...]]:
        """The keys of all objects that it names, and what the keys of its folders begin with."""
        pieces = {piece.key for entry in self.entries.values() for piece in entry.pieces}
        return pieces, tuple(f"{e.folder}/" for e in self.entries.values() if e.folder)


def is_in(name: str, folder: str) -> bool:
    """Whether a name is this one, or one below it."""
    return name == folder or name.startswith(f"{folder}/")


def _entry(tree: Mapping[str, Any]) -> Entry:
    pieces = tuple(Piece(**piece) for piece in tree["pieces"])
    return Entry(pieces, str(tree["folder"]), int(tree.get("objects", 0)))
