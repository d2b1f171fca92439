"""Files that stand on disk whole or not at all, whenever the process or the machine dies."""

import contextlib
import glob
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ABANDONED = 86_400  # seconds after which what is unfinished is nobody's work any more


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to be written, which takes its name and its place only when it is complete.

    Its content is on disk before its name is, and the name when this returns. Any number of
    processes may write one path: the last one counts. What a killed one left is deleted by the
    next that writes the path a day later.

    Raises:
        OSError: it cannot be written; what stood at the path stands there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)
    for left in leftovers(path):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def write(path: Path, content: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8."""
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON whole or not at all."""
    write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
