"""Standard input, output and error: bad lines, and what cannot be written, are known at once."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

CHUNK_BYTES = 2**22  # of standard input, held at once at most, but for a line


def say(message: bytes) -> None:
    """Writes to standard error from a signal's handler.

    Where the terminal is gone, what this process still has to say goes nowhere, but does not fail.
    """
    try:
        os.write(2, message)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with contextlib.suppress(OSError):
                os.write(stream, b"")
                continue
            os.dup2(nowhere, stream)
        os.close(nowhere)


def output(text: str) -> None:
    """Writes to standard output at once, so that what cannot be written is known here.

    Raises:
        OSError: it cannot be, and names standard output.
    """
    with naming("standard output"):
        try:
            print(text, end="", flush=True)
        except OSError:
            # What is left of it goes nowhere: when the process ends, it would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Has an OSError that names no file name this one: that of a write does not know its file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, what) from error


@dataclass(frozen=True)
class BadLine:
    """A line of input that has no translation."""

    why: str  # as what follows "line 3 "


def standard_input(size: int, longest: int) -> Iterator[tuple[int, list[str | BadLine]]]:
    """Yields standard input's lines, `size` at a time, with the number of the first, from 1.

    A line that is not UTF-8, or has more than `longest` bytes, is bad; what is too long is not
    kept. Fewer lines come at once where they are long, so that memory does not depend on the input.
    """
    size = 1 if sys.stdin.isatty() else size
    first, lines, held = 1, [], 0
    while raw := sys.stdin.buffer.readline(longest + 1):
        held += len(raw)
        if len(raw) > longest and not raw.endswith(b"\n"):
            lines.append(BadLine(f"is longer than {longest:,} bytes"))
            while raw and not raw.endswith(b"\n"):
                raw = sys.stdin.buffer.readline(longest)
        else:
            try:
                lines.append(raw.decode("utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                lines.append(BadLine(f"is not UTF-8 text (byte {error.start + 1})"))
        if len(lines) == size or held > CHUNK_BYTES:
            yield first, lines
            first, lines, held = first + len(lines), [], 0
    if lines:
        yield first, lines
