"""Lines of bytes: read from files in step, and made into sentence pairs."""

import codecs
import gzip
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from transformer.data.pairs import Pair, Problem
from transformer.errors import UserError

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]").search  # category Cc, but for the tab
KEY = "data.text"  # names the files, unless told otherwise


def aligned(source: str, target: str) -> Iterator[tuple[bytes, bytes]]:
    """Lines of two files side by side, without their \\n or \\r\\n; .gz is unpacked.

    Raises:
        UserError: a file cannot be read or is no whole gzip file, or their lengths differ.
    """
    files = read_lines(source, KEY), read_lines(target, KEY)
    for number, (left, right) in enumerate(itertools.zip_longest(*files)):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in files[left is None])
            counts = (number, longer) if left is None else (longer, number)
            raise UserError(
                f"{source} has {counts[0]} lines but {target} has {counts[1]}: line n of one must "
                "be the translation of line n of the other"
            )
        yield left, right


def read_lines(path: str, key: str) -> Iterator[bytes]:
    """Lines of a file without their \\n or \\r\\n, and without a byte order mark; .gz is unpacked.

    Args:
        path: of the file.
        key: where the configuration names it, for errors.

    Raises:
        UserError: the file cannot be read or is no whole gzip file.
    """
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file):
                if number == 0:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in {key}") from error


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
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in {key}") from error
