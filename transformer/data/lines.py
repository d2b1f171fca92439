"""Lines of bytes: read from files in step, and made into sentences or refused by file and line."""

import codecs
import gzip
import hashlib
import itertools
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from transformer.errors import UserError

log = logging.getLogger(__name__)


def aligned(source: str, target: str) -> Iterator[tuple[bytes, bytes]]:
    """Lines of two files side by side, without their \\n or \\r\\n; .gz is unpacked.

    Raises:
        UserError: a file cannot be read or is no whole gzip file, or their lengths differ.
    """
    files = _lines(source), _lines(target)
    for number, (left, right) in enumerate(itertools.zip_longest(*files)):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in files[left is None])
            counts = (number, longer) if left is None else (longer, number)
            raise UserError(
                f"{source} has {counts[0]} lines but {target} has {counts[1]}: line n of one must "
                "be the translation of line n of the other"
            )
        yield left, right


def _lines(path: str) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file):
                if number == 0:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in data.text") from error


def decode(
    pairs: Iterable[tuple[bytes, bytes]], where: Callable[[int, int], str], on_bad_line: str
) -> Iterator[tuple[str, str]]:
    """Bytes to text.

    Args:
        pairs: lines of source and target, which should be UTF-8 and not empty.
        where: names a line in a message, given its side (0 or 1) and its number from 1.
        on_bad_line: "refuse" raises a UserError; "skip" leaves the pair out and logs how many.
    """
    bad, total, first = 0, 0, ""
    for number, sides in enumerate(pairs, 1):
        total, texts = number, []
        for side, line in enumerate(sides):
            try:
                texts.append(_sentence(line))
            except ValueError as error:
                problem = f"{where(side, number)}: {error}"
                if on_bad_line == "refuse":
                    raise UserError(
                        f"{problem}; mend it, or leave such pairs out with data.on_bad_line=skip"
                    ) from None
                bad, first = bad + 1, first or problem
                break
        else:
            yield texts[0], texts[1]
    if bad:
        log.warning("left out %d bad pairs of %d; the first is %s", bad, total, first)


def _sentence(line: bytes) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise ValueError(f"not UTF-8 (byte 0x{byte:02x}, the line's {error.start + 1}th)") from None
    if not text.strip():
        raise ValueError("an empty sentence")
    return text


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes. Raises UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path in data.text") from error
