"""Files that are there whole or not at all, whenever the process or the machine dies."""

import contextlib
import fcntl
import glob
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from transformer import streams
from transformer.checked_json import Damaged as Damaged
from transformer.checked_json import as_json, parse_json
from transformer.errors import UserError
from transformer.storage import BucketPath, bucket_path, is_address

AnyPath = Path | BucketPath  # of a disk, or in a bucket

# Where there are no locks: seconds after which what is unfinished is nobody's work any more.
ABANDONED = 7 * 86_400
JUST_MADE = 5.0  # seconds in which a living process comes to hold what it has made
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}", re.DOTALL)


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on a disk.

    Raises:
        UserError: it is the address of something else. As a `Path` it would be a folder "gs:".
    """
    text = os.fspath(path)
    if is_address(text):
        raise UserError(
            f"{text} is no folder or file of a disk: give one that all processes of the run share "
            "(of a bucket, where it is mounted)"
        )
    return Path(text)


def any_path(path: str | os.PathLike[str]) -> AnyPath:
    """A path on a disk, or of a folder in a bucket: `gs://bucket/runs/base`.

    Raises:
        UserError: it is the address of something else.
    """
    if isinstance(path, BucketPath):
        return path
    text = os.fspath(path)
    return bucket_path(text) if is_address(text) else Path(text)


def read_json(path: AnyPath, kind: type = dict) -> Any:
    """A JSON file that this package wrote, an object or (`kind=list`) a list.

    Raises:
        Damaged: it holds something else.
        OSError: it cannot be read.
    """
    return parse_json(path.read_bytes(), kind)


@contextlib.contextmanager
def whole(path: AnyPath) -> Iterator[IO[bytes]]:
    """Opens a file to be written, which takes its name and its place only when it is complete.

    Its content is on disk before its name is, and the name when this returns. Any number of
    processes may write one path: the last one counts. What killed writers of it left is deleted.

    Raises:
        OSError: it cannot be written, and names the path; what stood there stands there still.
    """
    if isinstance(path, BucketPath):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _discard_dead(leftovers(path))  # of this path alone: the folder may be anybody's
        unfinished, descriptor = _create_held(path)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Makes an empty folder in which to build another, beside its place.

    It is deleted at the end unless it was renamed. Any number of processes may build one folder.
    What killed builders of it left is deleted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _discard_dead(leftovers(folder))  # of this folder alone: what lies beside may be anybody's
    unfinished, descriptor = _create_held(folder, folder=True)
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Deletes what dead processes left unfinished in a folder of a cache, all of it ours."""
    with contextlib.suppress(OSError):
        _discard_dead(path for path in folder.iterdir() if UNFINISHED.fullmatch(path.name))


def _discard_dead(unfinished: Iterable[Path]) -> None:
    """Holds each through its deletion: who has just made it finds it gone, and makes another."""
    for path in list(unfinished):
        with contextlib.suppress(OSError):  # another process was quicker
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _is_dead(descriptor):
                    discard(path)
            finally:
                os.close(descriptor)


def discard(path: Path) -> None:
    """Deletes a file or a folder, which another process may do at the same time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _create_held(path: Path, *, folder: bool = False) -> tuple[Path, int]:
    """Makes an empty file or folder beside a path: its path, and the descriptor that holds it.

    While that is open, the file or folder is a living process's work.
    """
    flags = os.O_RDONLY if folder else os.O_WRONLY | os.O_CREAT | os.O_EXCL
    while True:
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        if folder:
            unfinished.mkdir()
        try:
            descriptor = os.open(unfinished, flags, 0o666)
        except FileNotFoundError:
            if folder:  # it was taken for a dead one's before it was held
                continue
            raise
        with contextlib.suppress(OSError):  # a file system without locks: its age tells
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if unfinished.exists():
            return unfinished, descriptor
        os.close(descriptor)


def _is_dead(descriptor: int) -> bool:
    """Whether nobody holds what is unfinished; if so, the descriptor does from now on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(descriptor).st_mtime > ABANDONED
    return time.time() - os.fstat(descriptor).st_mtime > JUST_MADE


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Shows those who delete old folders that this one is in use; it may be gone all the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # which the reading itself will tell
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_read(folder: Path) -> bool:
    """Whether something is `reading` a folder, in this process or another."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def write(path: AnyPath, content: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8."""
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: AnyPath, content: Any) -> None:
    """Writes indented JSON whole or not at all."""
    write(path, as_json(content, indent=2) + "\n")


class Appending:
    """A file that lines are added to, each at once: a killed process leaves at most one cut.

    In a bucket others see lines some seconds later; the next checkpoint is never seen before them.
    """

    def __init__(self, path: AnyPath):
        self.path = path
        self._file = None if isinstance(path, BucketPath) else path.open("ab")

    def write(self, content: bytes) -> None:
        with streams.naming(str(self.path)):
            if isinstance(self.path, BucketPath):
                self.path.append(content)
            elif self._file:
                self._file.write(content)
                self._file.flush()  # all of it, or an error: a raw write may stop half-way

    def sync(self) -> None:
        """Returns when what was written outlasts the machine; in a bucket, see above."""
        if self._file:
            with streams.naming(str(self.path)):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        if isinstance(self.path, BucketPath):
            self.path.root.publish()
        elif self._file:
            self._file.close()


def require_room(folder: Path, size: int, key: str) -> None:
    """Raises UserError where a disk has less room than `size` bytes; `key` names the folder."""
    if (free := shutil.disk_usage(folder).free) < size:
        raise UserError(
            f"{key}={folder}: {size / 2**20:,.0f} MiB do not fit, {free / 2**20:,.0f} MiB are "
            f"free: make room, or name a folder of a larger disk in {key}"
        )


def leftovers(path: Path) -> Iterator[Path]:
    """What writers of a path are at work on, or left when they were killed."""
    return path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}")


def sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
