"""Subword sampling: every epoch's sentences cut into pieces anew, and planned anew.

Each sentence's cut is a function of (seed, epoch, index, side), so an epoch can be made at any
time and is always the same. Beside the corpus's own store lie those of two epochs and the number of
batches of each epoch that was ever planned: all of it a cache, without which the same answers come
slower.
"""

import contextlib
import hashlib
import json
import logging
import threading
import uuid
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from transformer import files
from transformer.data.batching import Plan
from transformer.data.chunks import CHUNK, Chunk
from transformer.data.store import Store, open_chunks
from transformer.data.tokenizers import SentencePieceTokenizer
from transformer.rng import Stream

log = logging.getLogger(__name__)

KEPT = 2  # epochs on disk, and mapped: a reader ahead of the training loop is in the next already


class Sampled:
    """The epochs of a run with subword sampling.

    Args:
        store: the corpus without sampling. A side that sampling makes longer than `max_length`
            keeps its pieces from here, so that no epoch loses an example.
        tokenizer: what the store was made with.
        folder: of the cache, for this corpus and tokenizer; made if missing.
        make_plan: the plan of an epoch, from its lengths.
        plan_key: changes whenever `make_plan` does.
        probability: see `SentencePieceTokenizer.sample`.
        seed: the experiment's.
        max_length: tokens of a side at most.
    """

    def __init__(
        self,
        store: Store,
        tokenizer: SentencePieceTokenizer,
        folder: Path,
        make_plan: Callable[[Int[np.ndarray, "n 2"]], Plan],
        *,
        plan_key: str,
        probability: float,
        seed: int,
        max_length: int,
    ):
        self.store = store
        self.plan = make_plan(store.lengths)
        self._tokenizer = tokenizer
        self._make_plan = make_plan
        self._draw = (probability, seed, max_length)
        self._folder = folder / _hash(*self._draw)
        self._counts_file = self._folder / f"batches-{_hash(plan_key)}.json"
        self._ends: list[int] = np.cumsum(self._read_counts(), dtype=int).tolist()
        self._open: dict[int, tuple[Store, Plan]] = {}
        self._reading: dict[int, contextlib.ExitStack] = {}
        if folder.exists():  # what was killed at work on other draws
            for draw in folder.iterdir():
                files.sweep(draw)
        self._lock = threading.RLock()  # prefetching and the training loop both ask

    def locate(self, index: int) -> tuple[int, int]:
        """(epoch, index within it) of the run's batch `index`."""
        with self._lock:
            while not self._ends or self._ends[-1] <= index:
                count = self.open(len(self._ends))[1].batches_per_epoch
                self._ends.append(count + (self._ends[-1] if self._ends else 0))
                self._write_counts()
            epoch = bisect_right(self._ends, index)
            return epoch, index - (self._ends[epoch - 1] if epoch else 0)

    def open(self, epoch: int) -> tuple[Store, Plan]:
        with self._lock:
            if epoch not in self._open:
                folder = self._folder / str(epoch)
                store = open_chunks(
                    folder,
                    lambda: _chunks(self.store, self._tokenizer, epoch, *self._draw),
                    vocab_size=self._tokenizer.size,
                )
                reading = self._reading[epoch] = contextlib.ExitStack()
                reading.enter_context(files.reading(folder))
                while len(self._open) >= KEPT:
                    over = next(iter(self._open))
                    del self._open[over]
                    self._reading.pop(over).close()
                self._sweep(epoch)
                self._open[epoch] = store, self._make_plan(store.lengths)
            return self._open[epoch]

    def _sweep(self, epoch: int) -> None:
        """Deletes the stores of epochs that are over, but for those that other runs are in.

        Who has one mapped keeps it all the same.
        """
        recent = {str(number) for number in range(epoch - KEPT + 1, epoch + 1)}
        for folder in list(self._folder.iterdir()):
            is_over = folder.name.isdigit() and folder.name not in recent
            if is_over and not files.is_read(folder):
                gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    folder.rename(gone)
                files.discard(gone)

    def _read_counts(self) -> list[int]:
        """Batches of each epoch, from the first on, as far as they are known."""
        try:
            counts, crc = files.read_json(self._counts_file, list)
            if crc != zlib.crc32(json.dumps(counts).encode()):
                raise ValueError("its checksum is another")
            return counts
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            log.warning("%s is damaged (%s): counting anew", self._counts_file, error)
            return []

    def _write_counts(self) -> None:
        counts = np.diff(self._ends, prepend=0).tolist()
        content = json.dumps([counts, zlib.crc32(json.dumps(counts).encode())])
        files.write(self._counts_file, content)


def _chunks(
    store: Store,
    tokenizer: SentencePieceTokenizer,
    epoch: int,
    probability: float,
    seed: int,
    max_length: int,
) -> Iterator[Chunk]:
    """An epoch's sentences, from those of the store, which are the text but for normalisation."""
    bits = np.random.Philox(np.random.SeedSequence([seed, Stream.SAMPLING, epoch]))
    for start in range(0, len(store), CHUNK):
        stop = min(start + CHUNK, len(store))
        plain = [
            side(index).tolist()
            for index in range(start, stop)
            for side in (store.source, store.target)
        ]
        # Number 2 * index + side of the stream is a sentence's own, wherever chunks begin.
        seeds = bits.random_raw(len(plain)) >> np.uint64(32)
        sampled = tokenizer.sample(tokenizer.decode(plain), probability, seeds)
        sentences = [
            new if len(new) < max_length else old[:-1]
            for new, old in zip(sampled, plain, strict=True)
        ]
        yield Chunk.of(sentences, store.pairs[start:stop].copy())


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
