"""A folder in a bucket: what it holds is changed by its owner, one change at a time."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import platform
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from transformer.errors import UserError
from transformer.storage.address import Address, parse
from transformer.storage.contents import Contents
from transformer.storage.manifest import DATA, NAME, Entry, Manifest, Owner, Piece
from transformer.storage.store import Changed, Store, Version
from transformer.storage.stores import open_store

log = logging.getLogger(__name__)

TERM = 30.0  # seconds for which a folder is its owner's after the last sign of life
PIECE = 2**20  # bytes up to which what is appended is put together with the last piece
ABANDONED = 86_400.0  # seconds after which objects that no manifest names are nobody's
OURS = re.compile(rf"{DATA}/(\d{{6,}})/(?:checkpoints/|damaged/|.*\.[0-9a-f]{{12}}$)")  # keys


class Fenced(UserError):
    """Another process has taken a folder over; what this one still writes is never read."""


class Folder(Contents):
    """The files below one address; the same object for all of a process that name this address.

    Any process may add a file as a whole. The owner alone removes, renames and
    appends, and an owner whose term has ended unnoticed finds each change refused.
    """

    def __init__(self, address: Address, store: Store):
        super().__init__(address, store)
        self._id = uuid.uuid4().hex
        self._token = 0  # while it is this process's
        self._joined = 0  # the owner's token, in another process of its run
        self._fenced: Fenced | None = None
        self._appending = threading.Lock()  # never held while a store is asked
        self._pending: dict[str, list[bytes]] = {}  # appended, not yet there for others
        self._tails: dict[str, tuple[str, bytes]] = {}  # of files appended to: their last piece

    def _is_known(self) -> bool:
        return bool(self._token) or super()._is_known()

    # -- What changes

    def new_key(self, name: str) -> str:
        """The key of an object that no process has written, nor will."""
        return f"{DATA}/{self._token:06d}/{name}.{uuid.uuid4().hex[:12]}"

    def key_of_save(self, name: str) -> str:
        """The key of what all processes of the owner's run write together, each a part."""
        return f"{DATA}/{self._token or self._joined:06d}/{name}"

    def write_object(self, key: str, content: bytes) -> None:
        """Writes a part of a folder that is to be published: as a library would."""
        self._store.write(self.address / key, content)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole; where this process owns the folder, behind all that it appended."""
        self.publish({name: content})

    def publish(
        self,
        contents: Mapping[str, bytes] | None = None,
        *,
        folders: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """One change of what the folder holds: all of it is seen by others, or none.

        Args:
            contents: files to write, by name.
            folders: what libraries have written: what their keys begin with, by name.
            without: names to remove.
            renamed: new names by old ones.

        Raises:
            Fenced: another process owns the folder now.
        """
        with self._lock:
            self.require_own()
            entries = {name: self._folder(key) for name, key in (folders or {}).items()}
            for name, content in (contents or {}).items():
                entries[name] = Entry((self._write_piece(name, content),) if content else ())
            appended = self._appended() if self._token else {}
            entries |= {name: self._with_appended(name, c) for name, c in appended.items()}

            def change(manifest: Manifest) -> Manifest:
                return manifest.renamed(renamed or {}).without(without).with_entries(entries)

            before = self._update(change)
            self._are_there(appended)
            replaced = [e for n, e in before.entries.items() if self._manifest.entries.get(n) != e]
        self._delete(replaced)

    def _folder(self, key: str) -> Entry:
        """A folder that a library has written, and how many objects it has."""
        return Entry(folder=key, objects=len(self._store.list(self.address / key)))

    def append(self, name: str, content: bytes) -> None:
        """Adds to a file's end; others see it at the next `publish`, or sign of life."""
        with self._appending:
            self._pending.setdefault(name, []).append(content)

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all in it; where there is none, nothing."""
        with self._appending:
            self._pending.pop(name, None)
        manifest = self.manifest(fresh=not self._token)
        if manifest.without([name]).entries != manifest.entries:
            self.publish(without=[name])

    def _write_piece(self, name: str, content: bytes) -> Piece:
        piece = Piece.of(self.new_key(name), content)
        self._store.write(self.address / piece.key, content)
        return piece

    def _appended(self) -> dict[str, list[bytes]]:
        """What was appended and others do not see."""
        with self._appending:
            return {name: [*contents] for name, contents in self._pending.items()}

    def _are_there(self, appended: Mapping[str, list[bytes]]) -> None:
        """Others see this now; what failed on its way stays for the next change."""
        with self._appending:
            for name, contents in appended.items():
                self._pending[name] = self._pending.get(name, [])[len(contents) :]
                if not self._pending[name]:
                    del self._pending[name]

    def _with_appended(self, name: str, contents: list[bytes]) -> Entry:
        """A file with more at its end: with the last piece again, until that is large enough."""
        content = b"".join(contents)
        pieces = [*self._manifest.entries.get(name, Entry()).pieces]
        if pieces and pieces[-1].size < PIECE:
            last = pieces.pop()
            key, tail = self._tails.get(name, ("", b""))
            if key != last.key:
                tail = self._tail(last.key)
            content = tail + content
        pieces.append(self._write_piece(name, content))
        self._tails[name] = pieces[-1].key, content
        return Entry(tuple(pieces))

    def _tail(self, key: str) -> bytes:
        """A file's last piece. Raises Fenced where the next owner has deleted it."""
        try:
            return self._store.read(self.address / key)
        except FileNotFoundError:
            self._load()
            self._require_own()
            raise

    def _delete(self, entries: Iterable[Entry]) -> None:
        """Deletes the objects of entries that no manifest names any more; sweeps do the rest."""
        pieces, folders = self._manifest.keys()
        keys = [piece.key for entry in entries for piece in entry.pieces]
        addresses = [self.address / key for key in keys if key not in pieces]
        with contextlib.suppress(UserError):
            for entry in entries:
                if entry.folder and f"{entry.folder}/" not in folders:
                    addresses += self._store.list(self.address / entry.folder)
            self._store.delete(addresses)

    def _replace(self, manifest: Manifest, version: Version | None) -> None:
        """Writes the manifest over the version that was read, or as the folder's first one.

        Raises:
            Changed: there is another.
            UserError: the folder would lie among another one's objects.
        """
        if version is None:
            self._require_apart()
        self._version = self._store.replace(self.address / NAME, manifest.encode(), version)
        self._manifest, self._looked = manifest, time.monotonic()

    def _require_apart(self) -> None:
        """Raises UserError where the address is one among another folder's objects."""
        names = self.address.key.split("/")
        for place in (place for place, name in enumerate(names) if name == DATA):
            around = dataclasses.replace(self.address, key="/".join(names[:place]))
            if self._store.read_version(around / NAME):
                raise UserError(
                    f"{self.address} lies among the objects of {around}, which is a run or a "
                    "corpus: take another address"
                )

    def _update(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Replaces the manifest by one that follows from it; returns the one before."""
        for attempt in itertools.count(1):
            if not self._token:
                self._load()
            self._require_own()
            before = self._manifest
            after = dataclasses.replace(change(before), writes=before.writes + 1, writer=self._id)
            try:
                self._replace(after, self._version)
            except Changed:  # a reader has added a file, or another process owns the folder
                time.sleep(random.uniform(0.0, min(0.1 * attempt, 2.0)))
                self._load()
            else:
                return before
        raise AssertionError("the loop returns or raises")

    # -- Whose it is

    def take(self) -> None:
        """Makes this process the owner.

        An owner that gives no sign of life for a term is dead: the rest of its term is waited for.

        Raises:
            UserError: it has a living owner, which is named.
        """
        with self._lock:
            while not self._take(self._unowned()):
                pass
        self._sweep()

    def _unowned(self) -> Version | None:
        """Waits until no living process owns the folder; which version of the manifest says so."""
        version = self._load()
        owner, writes = self._manifest.owner, self._manifest.writes
        while owner and version and (left := TERM - version.age) > 0.0:
            log.info(
                "%s is owned by %s, which lives or was killed: waiting %.0f s for a sign of life",
                self.address, owner.name, left,
            )  # fmt: skip
            time.sleep(min(left + 1.0, TERM / 6.0))
            version = self._load()
            owner = self._manifest.owner
            if owner and self._manifest.writes != writes and self._manifest.writer == owner.id:
                raise self._is_owned(owner)
        if owner:
            log.info("%s: taken over from %s, which was killed", self.address, owner.name)
        return version

    def _is_owned(self, owner: Owner) -> UserError:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(owner.since))
        return UserError(
            f"{self.address} is being trained by another process, {owner.name}, since {since}: "
            "wait for it, or take another --workdir"
        )

    def _take(self, version: Version | None) -> bool:
        """Whether this process is the owner now, or others have changed the manifest meanwhile."""
        name = f"process {os.getpid()} on {platform.node()}"
        before, token = self._manifest.owner, self._manifest.token + 1
        mine = dataclasses.replace(
            self._manifest,
            owner=Owner(self._id, name, time.time()),
            token=token,
            writes=self._manifest.writes + 1,
            writer=self._id,
        )
        try:
            self._replace(mine, version)
        except Changed:
            self._load()
            owner = self._manifest.owner
            if owner and owner != before:
                raise self._is_owned(owner) from None
            return False
        self._token, self._fenced = token, None
        return True

    def join(self) -> Owner | None:
        """Makes this a process of the owner's run; the owner, None where there is none."""
        manifest = self.manifest(fresh=not self._token)
        self._joined = manifest.token
        return manifest.owner

    def require_own(self) -> None:
        """Raises Fenced where this process was the owner and is not; asks no store."""
        if self._fenced:
            raise self._fenced

    def _require_own(self) -> None:
        self.require_own()
        if not self._token:
            return
        owner = self._manifest.owner
        if self._manifest.token != self._token or owner is None or owner.id != self._id:
            by = f"by {owner.name}" if owner else "and left by another process"
            self._fenced = Fenced(
                f"{self.address} was taken over {by} while this process gave no sign of life for "
                f"{TERM:.0f} s: it ends, and nothing that it has written since is read"
            )
            raise self._fenced

    def renew(self) -> None:
        """Gives a sign of life, and shows others what was appended."""
        self.publish()

    def release(self) -> None:
        """Gives the folder back, with all that was appended."""
        with self._lock:
            try:
                self.publish()
                self._update(lambda manifest: dataclasses.replace(manifest, owner=None))
            finally:
                self._token = 0

    def _sweep(self) -> None:
        """Deletes what killed and fenced owners have written and no manifest names.

        What others add lies under the token 0, and has a day to come into the manifest. What lies
        elsewhere is none of ours.
        """
        pieces, folders = self._manifest.keys()
        start = len(f"{self.address.key}/") if self.address.key else 0
        unread = []
        for address, (_, age) in self._store.list(self.address / DATA).items():
            key = address.key[start:]
            if not (ours := OURS.match(key)) or key in pieces or key.startswith(folders):
                continue
            if 0 < int(ours[1]) < self._token or age > ABANDONED:
                unread.append(address)
        self._store.delete(unread)


@functools.cache
def open_folder(text: str) -> Folder:
    """The folder at an address, `gs://bucket/runs/base`; nothing is read yet."""
    address = parse(text)
    return Folder(address, open_store(address.scheme))
