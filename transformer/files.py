"""Files that stand on disk whole or not at all, whenever the process or the machine dies."""

import contextlib
import glob
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from transformer.errors import UserError

NESTED = 64  # lists and objects within each other: none of ours comes near
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3|az|abfs|hf|hdfs|https?|file):/")
ABANDONED = 86_400  # seconds after which what is unfinished is nobody's work any more


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on a disk.

    Raises:
        UserError: it is the address of something else. As a `Path` it would be a folder "gs:".
    """
    text = os.fspath(path)
    if SCHEME.match(text):
        raise UserError(
            f"{text} is no folder or file of a disk: give one that all processes of the run share "
            "(of a bucket, where it is mounted)"
        )
    return Path(text)


class Damaged(ValueError):
    """A file does not hold what was written there; the text says what is wrong with it."""


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file that this package wrote, an object or (`kind=list`) a list.

    Raises:
        Damaged: it holds something else.
        OSError: it cannot be read.
    """
    return parse_json(path.read_bytes(), kind)


def parse_json(content: bytes, kind: type = dict) -> Any:
    """An object or a list in UTF-8 JSON. Raises Damaged where it is something else."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise Damaged("it is nested too deeply") from None
    except ValueError as error:
        raise Damaged(f"it is no JSON: {error}") from error
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list"}
        raise Damaged(f"it holds {type(value).__name__}, not {names[kind]}")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > NESTED:
            raise Damaged("it is nested too deeply")
        inner = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for items in inner for x in items if isinstance(x, dict | list)]
    return value


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
    write(path, as_json(content, indent=2) + "\n")


def as_json(content: Any, **options: Any) -> str:
    """JSON that UTF-8 can hold: a name of a file that is no text is written with escapes."""
    text = json.dumps(content, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, **options)
    return text


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
