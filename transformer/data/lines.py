"""Lines of bytes: read from files in step, and made into sentence pairs."""

import codecs
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformer import storage
from transformer.data.pairs import Pair, Problem
from transformer.errors import UserError

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]").search  # category Cc, but for the tab
GZIP, BUFFER = b"\x1f\x8b", 2**20
KEY = "data.text"  # names the files, unless told otherwise


class Digests:
    """What files held when a corpus was fingerprinted.

    Whoever reads them later is held to it: what is made of a text is kept under its fingerprint,
    so that text which changes in between would be given to every later run of the old one.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def take(self, path: str | Path, key: str = KEY) -> str:
        """SHA-256 of a file's bytes, which its readers will be held to. Raises UserError."""
        self._known[str(path)] = digest = file_digest(path, key)
        return digest

    def of(self, path: str | Path, key: str = KEY) -> str:
        """What was taken of it, or is now. Raises UserError."""
        return self._known.get(str(path)) or self.take(path, key)

    def check(self, path: str | Path, digest: str) -> None:
        """Raises UserError where what was read is not what was fingerprinted."""
        if self._known.get(str(path), digest) != digest:
            raise UserError(
                f"{path} changed while it was read: start again when it is written, from an empty "
                "--workdir"
            )


def aligned(
    source: str, target: str, digests: Digests | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Lines of two files side by side, without their \\n or \\r\\n; gzip is unpacked.

    Raises:
        UserError: a file cannot be read, is no whole gzip file or has changed, or their lengths
            differ.
    """
    files = read_lines(source, KEY, digests), read_lines(target, KEY, digests)
    for number, (left, right) in enumerate(itertools.zip_longest(*files)):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in files[left is None])
            counts = (number, longer) if left is None else (longer, number)
            raise UserError(
                f"{source} has {counts[0]} lines but {target} has {counts[1]}: line n of one must "
                "be the translation of line n of the other"
            )
        yield left, right


def read_lines(path: str, key: str, digests: Digests | None = None) -> Iterator[bytes]:
    """Lines of a file without their \\n or \\r\\n, and without a byte order mark.

    What is packed by gzip is unpacked, whatever its name.

    Args:
        path: of the file.
        key: where the configuration names it, for errors.
        digests: what it must hold.

    Raises:
        UserError: the file cannot be read, is no whole gzip file, or is not what `digests` knows.
    """
    try:
        with open_regular(path, key) as raw:
            hashed = _Hashed(raw)
            plain = io.BufferedReader(hashed, BUFFER)
            packed = plain.peek(2)[:2] == GZIP
            file = gzip.GzipFile(fileobj=plain) if packed else plain
            for number, line in enumerate(file):
                if number == 0:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in {key}") from error
    if digests:
        digests.check(path, hashed.digest)


class _Hashed(io.RawIOBase):
    """A file's bytes, hashed as they are read."""

    def __init__(self, file: io.RawIOBase):
        self._file, self._sha256 = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._sha256.update(memoryview(buffer)[:count])
        return count

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()


def open_regular(path: str | Path, key: str) -> io.RawIOBase:
    """A file opened for its bytes, unbuffered; or an object in a bucket, which is read as it comes.

    Raises:
        UserError: it is a pipe or a device: it will be read more than once.
        OSError: it cannot be opened.
    """
    if "\0" in str(path):
        raise UserError(f"{key} has a NUL in it: {str(path)[:60]!r}; give the path of a file")
    if storage.is_address(path):
        return storage.ObjectReader(str(path))
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder has an error of its own
        raise UserError(
            f"{path} is no regular file, and is read more than once: write its text to one, and "
            f"name that in {key}"
        )
    return open(path, "rb", buffering=0)


def decode(lines: Iterable[tuple[bytes, bytes]]) -> Iterator[Pair]:
    """Bytes of source and target to text: a pair for each, whatever is wrong with it.

    Bytes that are not UTF-8 become U+FFFD. What is wrong stands in the pair's `problems`.
    """
    for source, target in lines:
        problems, sides = Problem(0), []
        for line in (source, target):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                text = line.decode("utf-8", errors="replace")
                problems |= Problem.NOT_UTF8
            if CONTROL(text):
                problems |= Problem.CONTROL_CHARACTERS
            if not text.strip():
                problems |= Problem.EMPTY
            sides.append(text)
        yield Pair(sides[0], sides[1], problems)


def digest(*parts: object) -> str:
    """Hexadecimal SHA-256 of what JSON makes of these."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def file_digest(path: str | Path, key: str = KEY) -> str:
    """SHA-256 of a file's bytes. Raises UserError where it cannot be read."""
    try:
        with open_regular(path, key) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in {key}") from error
