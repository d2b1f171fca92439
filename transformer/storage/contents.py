"""What a folder in a bucket holds, for any process: files by name, read whole and checked."""

import errno
import hashlib
import threading
import time

from transformer.checked_json import Damaged
from transformer.errors import UserError
from transformer.storage.address import Address
from transformer.storage.manifest import NAME, Manifest
from transformer.storage.store import LOOKS, Store, Version

FRESH = 1.0  # seconds for which a reader takes the manifest for what it was


class Contents:
    """The files below one address, as its manifest names them."""

    def __init__(self, address: Address, store: Store):
        self.address, self._store = address, store
        self._lock = threading.RLock()
        self._manifest, self._version = Manifest(), None
        self._looked = -float("inf")

    def usage(self) -> str:
        """How often the store was asked by this process, and how many bytes went over, in words."""
        return str(self._store.usage())

    def manifest(self, *, fresh: bool = False) -> Manifest:
        """What the folder holds: read again where others may have changed it."""
        with self._lock:
            if fresh or not self._is_known():
                self._load()
            return self._manifest

    def _is_known(self) -> bool:
        """Whether the manifest that was read last is that of now, or nearly."""
        return time.monotonic() - self._looked < FRESH

    def _load(self) -> Version | None:
        found = self._store.read_version(self.address / NAME)
        self._looked = time.monotonic()
        self._manifest, self._version = Manifest(), None
        if found:
            content, self._version = found
            try:
                self._manifest = Manifest.decode(content)
            except Damaged as error:
                raise UserError(
                    f"{self.address}/{NAME} is damaged ({error}): bring it back, or take another "
                    "address"
                ) from error
        return self._version

    def is_foreign(self) -> bool:
        """Whether objects lie here that no manifest of ours speaks of."""
        return self._version is None and bool(self._store.list(self.address))

    def read(self, name: str) -> bytes:
        """A file's content, checked. Raises FileNotFoundError, or OSError where it is damaged."""
        for left in reversed(range(LOOKS)):
            try:
                return self._read(name)
            except FileNotFoundError:
                known = name in self.manifest(fresh=True).entries
                if known and not left:
                    raise OSError(
                        errno.EIO, f"an object that {NAME} names is gone", str(self.address / name)
                    ) from None
                if not known:
                    raise
        raise AssertionError("the loop returns or raises")

    def _read(self, name: str) -> bytes:
        entry = self.manifest().entries.get(name)
        if entry is None:
            return self._store.read(self._inside(name))
        if entry.folder:
            raise IsADirectoryError(21, "Is a directory", str(self.address / name))
        contents = []
        for piece in entry.pieces:
            content = self._store.read(self.address / piece.key)
            if hashlib.sha256(content).hexdigest() != piece.sha256:
                raise OSError(74, "it is not what was written", str(self.address / name))
            contents.append(content)
        return b"".join(contents)

    def _inside(self, name: str) -> Address:
        """The object of a name within a folder that a library has written."""
        parts = name.split("/")
        for end in range(len(parts) - 1, 0, -1):
            entry = self.manifest().entries.get("/".join(parts[:end]))
            if entry and entry.folder:
                return self.address / "/".join([entry.folder, *parts[end:]])
        raise FileNotFoundError(2, "No such file", str(self.address / name))

    def folder_address(self, name: str) -> Address:
        """The address of a folder that a library has written. Raises FileNotFoundError."""
        entry = self.manifest().entries.get(name)
        if entry is None or not entry.folder:
            raise FileNotFoundError(2, "No such folder", str(self.address / name))
        return self.address / entry.folder

    def names(self) -> list[str]:
        """All files, those within folders that libraries have written too.

        Raises:
            UserError: an object of such a folder is missing.
        """
        names = set()
        for name, entry in self.manifest(fresh=True).entries.items():
            if not entry.folder:
                names.add(name)
                continue
            start = len(str(self.address / entry.folder)) + 1
            inside = {
                f"{name}/{str(a)[start:]}" for a in self._store.list(self.address / entry.folder)
            }
            if len(inside) < entry.objects:
                raise UserError(
                    f"{self.address / name} has {len(inside)} of {entry.objects} objects: it is "
                    "damaged, or was deleted meanwhile: look, and start the same command again"
                )
            names |= inside
        return sorted(names)
