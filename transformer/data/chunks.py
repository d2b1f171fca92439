"""Sentence pairs as ids, some thousand at a time: by this process, or by one on each core.

SentencePiece encodes on all cores, but what comes of it are Python's lists, and those are made by
one core alone. A large corpus is therefore given to worker processes, which hand arrays back.
"""

import contextlib
import functools
import itertools
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple, Self

import numpy as np
from jaxtyping import Int, UInt64

from transformer.batch import EOS
from transformer.data.arrays import ranges, starts
from transformer.data.pairs import Pair, Problem
from transformer.data.tokenizers import SentencePieceTokenizer, Tokenizer
from transformer.errors import UserError

CHUNK = 8_192  # pairs tokenised at a time
MANY = 16  # chunks, after which workers are started: an estimate, as is the next
MOST_WORKERS = 16  # one process reads the text for all of them
PAIR = np.dtype([("problems", "u1"), ("part", "<u2"), ("digest", "<u8")])


class Chunk(NamedTuple):
    """Some pairs on their way into a store."""

    ids: Int[np.ndarray, " total"]  # of all sentences, EOS included, source 0, target 0 ...
    lengths: Int[np.ndarray, " sentences"]
    pairs: np.ndarray  # PAIR of each

    @classmethod
    def of(cls, sentences: list[list[int]], pairs: np.ndarray) -> Self:
        """Packs sentences as a tokenizer gives them; EOS is put behind each."""
        for sentence in sentences:
            sentence.append(EOS)
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        flat = itertools.chain.from_iterable(sentences)
        return cls(np.fromiter(flat, np.int32, int(lengths.sum())), lengths, pairs)


class Job(NamedTuple):
    """What becomes a chunk."""

    texts: list[str]  # source 0, target 0, source 1 ...
    pairs: np.ndarray  # PAIR of each, but for the digests

    @classmethod
    def of(cls, pairs: list[Pair]) -> Self:
        known = np.zeros(len(pairs), PAIR)
        known["problems"] = [pair.problems for pair in pairs]
        known["part"] = [pair.part for pair in pairs]
        return cls([side for pair in pairs for side in (pair.source, pair.target)], known)


def encoded(pairs: Iterator[Pair], tokenizer: Tokenizer) -> Iterator[Chunk]:
    """All pairs as ids, chunk by chunk."""
    for _, chunk in encoded_some(pairs, tokenizer, lambda _: True):
        assert chunk is not None
        yield chunk


def encoded_some(
    pairs: Iterator[Pair], tokenizer: Tokenizer, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, Chunk | None]]:
    """How many pairs each chunk has, and the chunk where its number is wanted; in order."""
    with contextlib.ExitStack() as stack:
        # SentencePiece is at work on the next chunk while what came of one is written.
        ahead, at_once = stack.enter_context(ThreadPoolExecutor(1)), 1
        work: Callable[[Job], Chunk] = functools.partial(encode, tokenizer=tokenizer)
        running: deque[tuple[int, Future[Chunk] | None]] = deque()
        sent = 0
        for number in itertools.count():
            some = list(itertools.islice(pairs, CHUNK))
            if some:
                if sent == MANY and at_once == 1 and (count := _workers(tokenizer)):
                    work = stack.enter_context(Workers(tokenizer.model, count)).encode  # pyright: ignore
                    ahead, at_once = stack.enter_context(ThreadPoolExecutor(count)), count + 1
                job = ahead.submit(work, Job.of(some)) if wanted(number) else None
                sent += job is not None
                running.append((len(some), job))
            while running and (len(running) > at_once or not some):
                count, job = running.popleft()
                yield count, job.result() if job else None
            if not some:
                return


def encode(job: Job, tokenizer: Tokenizer) -> Chunk:
    """Encodes some pairs: their ids, what is wrong with them, and their digests."""
    texts, known = job
    chunk = Chunk.of(tokenizer.encode(texts), known)
    # A side that is nothing but EOS had text that the tokenizer does not keep; or none, and then
    # its corpus has said whether that is a problem.
    nothing = chunk.lengths == 1
    for place in np.flatnonzero(nothing):
        if texts[place]:
            known["problems"][place // 2] |= int(Problem.EMPTY)
    known["digest"] = _digests(chunk.ids, chunk.lengths.reshape(-1, 2).sum(axis=1))
    return chunk


def _digests(
    ids: Int[np.ndarray, " total"], lengths: Int[np.ndarray, " pairs"]
) -> UInt64[np.ndarray, " pairs"]:
    """Digests each pair's ids. Equal ids are equal normalised text; EOS parts the sides.

    The sum, modulo 2^64, of each id with its place, mixed by SplitMix64's finaliser (Steele et al.
    2014, Fig. 16).
    """
    place = ranges(np.zeros_like(lengths), lengths)
    mixed = ids.astype(np.uint64) | (place.astype(np.uint64) << 32)
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> 27)) * np.uint64(0x94D049BB133111EB)
    return np.add.reduceat(mixed ^ (mixed >> 31), starts(lengths))


def _workers(tokenizer: Tokenizer) -> int:
    """How many workers help; 0 where this process is better off alone."""
    cores = len(os.sched_getaffinity(0))
    # A class of one's own may be known in this process alone.
    return min(cores, MOST_WORKERS) if isinstance(tokenizer, SentencePieceTokenizer) else 0


class Workers:
    """Processes that encode, each a chunk at a time.

    They are started by a plain command: `multiprocessing` would run the caller's script in each.
    """

    def __init__(self, model: bytes, count: int):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}  # no accelerator is theirs
        command = [sys.executable, "-m", "transformer.data.encoding_worker"]
        self._processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is this process's to obey
            )
            for _ in range(count)
        ]
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            send(process.stdin, model)
            self._free.put(process)

    def encode(self, job: Job) -> Chunk:
        """Has a free worker encode some pairs; any thread may ask.

        Raises:
            UserError: the worker has ended.
        """
        process = self._free.get()
        try:
            send(process.stdin, job)
            return pickle.load(process.stdout)  # pyright: ignore[reportArgumentType]
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                "a process that tokenises ended (was it killed for its memory?): start the same "
                "command again"
            ) from error
        finally:
            self._free.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()


def send(stream: IO[bytes] | None, what: Any) -> None:
    """Writes an object for the other end of a pipe, at once."""
    assert stream
    pickle.dump(what, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()
