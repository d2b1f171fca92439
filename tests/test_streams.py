"""Standard input: bad lines cost themselves, and memory does not depend on the input."""

import io
import sys
from types import SimpleNamespace

import pytest

from transformer import streams


def test_a_line_that_is_too_long_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs its own place among the others, and no piece of it is larger than the bound."""
    content = b"uno\r\n" + b"x" * 64 + b"\n" + b"y" * 65 + b"\nd\xff\n\n" + b"z" * 1_000
    asked, buffer = [], io.BytesIO(content)
    read = buffer.readline

    def readline(size: int) -> bytes:
        asked.append(size)
        return read(size)

    stdin = SimpleNamespace(isatty=lambda: False, buffer=SimpleNamespace(readline=readline))
    monkeypatch.setattr(sys, "stdin", stdin)
    (first, lines), (later, rest) = streams.standard_input(4, longest=64)
    long = streams.BadLine("is longer than 64 bytes")
    assert (first, later) == (1, 5) and max(asked) <= 65
    assert lines == ["uno", "x" * 64, long, streams.BadLine("is not UTF-8 text (byte 2)")]
    assert rest == ["", long]


def test_many_long_lines_come_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK_BYTES", 100)
    content = (b"x" * 49 + b"\n") * 7
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = [(first, len(lines)) for first, lines in streams.standard_input(1_000, longest=64)]
    assert found == [(1, 3), (4, 3), (7, 1)]
