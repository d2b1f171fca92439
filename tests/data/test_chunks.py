"""Pairs become ids alike in this process and in others."""

from collections.abc import Iterator

import numpy as np
import pytest

from transformer.data import Pair, Problem, chunks
from transformer.data.chunks import Chunk, Workers, encoded, encoded_some
from transformer.errors import UserError


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 7)


def pairs(count: int) -> Iterator[Pair]:
    for number in range(count):
        yield Pair(f"la casa {number}", "\u200b" if number % 5 == 0 else f"the house {number}")


def assert_equal(one: list[Chunk], other: list[Chunk]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for mine, theirs in zip(a, b, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_workers_encode_what_this_process_encodes(
    tokenizer, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third chunk on they do, in order; none is started where fewer come."""
    monkeypatch.setattr(chunks, "_workers", lambda _: 0)
    alone = [*encoded(pairs(60), tokenizer)]
    assert len(alone) == 9 and alone[-1].pairs["problems"][-1] == 0
    assert alone[0].pairs["problems"].tolist() == [Problem.EMPTY, 0, 0, 0, 0, Problem.EMPTY, 0]
    started = []

    class Counted(Workers):
        def __init__(self, model: bytes, count: int):
            started.append(count)
            super().__init__(model, count)

    monkeypatch.setattr(chunks, "_workers", lambda _: 2)
    monkeypatch.setattr(chunks, "Workers", Counted)
    monkeypatch.setattr(chunks, "MANY", 2)
    assert_equal([*encoded(pairs(14), tokenizer)], alone[:2])
    assert started == []
    assert_equal([*encoded(pairs(60), tokenizer)], alone)
    some = [*encoded_some(pairs(60), tokenizer, lambda number: number % 2 == 0)]
    assert [count for count, _ in some] == [7] * 8 + [4]
    assert_equal([chunk for _, chunk in some if chunk], alone[::2])
    assert started == [2, 2]


def test_a_killed_worker_is_one_line(tokenizer) -> None:
    with Workers(tokenizer.model, 1) as workers:
        workers._processes[0].kill()
        workers._processes[0].wait()
        with pytest.raises(UserError, match="a process that tokenises ended"):
            workers.encode(chunks.Job.of([*pairs(3)]))
