"""The path of a file or folder in a bucket, with the methods of `pathlib.Path` that we use."""

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatchcase

from transformer.storage.folder import Folder, open_folder


@dataclasses.dataclass(frozen=True)
class BucketPath:
    """A name below a `Folder`; "" is the folder itself.

    There are no empty folders in a bucket: one is there while something is in it.
    """

    root: Folder = dataclasses.field(repr=False)
    key: str = ""

    def __str__(self) -> str:
        return str(self.root.address / self.key) if self.key else str(self.root.address)

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> "BucketPath":
        return BucketPath(self.root, f"{self.key}/{name}" if self.key else str(name))

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        return BucketPath(self.root, self.key.rpartition("/")[0])

    def absolute(self) -> "BucketPath":
        return self

    def exists(self) -> bool:
        return self._entry() is not None or any(True for _ in self.iterdir())

    def is_dir(self) -> bool:
        entry = self._entry()
        return bool(entry.folder) if entry else any(True for _ in self.iterdir())

    def iterdir(self) -> Iterator["BucketPath"]:
        """What lies in this folder; within one that a library has written, nothing is seen."""
        start = f"{self.key}/" if self.key else ""
        names = {
            name[len(start) :].split("/")[0]
            for name in self.root.manifest().entries
            if name.startswith(start)
        }
        return (self / name for name in sorted(names))

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What lies below this folder and has a name of this pattern, part by part."""
        wanted = pattern.split("/")
        start = f"{self.key}/" if self.key else ""
        for name in sorted(self.root.manifest().entries):
            parts = name[len(start) :].split("/") if name.startswith(start) else []
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield BucketPath(self.root, name)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder is there with what is in it."""

    def read_bytes(self) -> bytes:
        return self.root.read(self.key)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes) -> None:
        """Writes the file whole or not at all."""
        self.root.write(self.key, content)

    def append(self, content: bytes) -> None:
        """Adds to the file's end, which others see soon; see `Folder.append`."""
        self.root.append(self.key, content)

    def unlink(self, *, missing_ok: bool = False) -> None:
        if not missing_ok and self._entry() is None:
            raise FileNotFoundError(2, "No such file", str(self))
        self.root.remove(self.key)

    def rename(self, target: "BucketPath") -> None:
        """Gives a file or a folder that a library has written another name in the same folder."""
        self.root.publish(renamed={self.key: target.key})

    def address(self) -> str:
        """The address at which a library finds this folder of its own. Raises FileNotFoundError."""
        return str(self.root.folder_address(self.key))

    def _entry(self):
        return self.root.manifest().entries.get(self.key)


def bucket_path(text: str) -> BucketPath:
    """The folder at an address, as a path. Raises UserError where it is none of ours."""
    return BucketPath(open_folder(text.rstrip("/")))
