"""Batches as arrays: `batch = f(seed, step)`, in whole or the rows that one host reads."""

import bisect
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int

from transformer.batch import BOS, Batch, Source, Target
from transformer.data.arrays import ranges, starts
from transformer.data.batching import Plan, Rows, Shape
from transformer.data.masking import Masking
from transformer.data.store import Store

Item = TypeVar("Item")


@runtime_checkable
class Epochs(Protocol):
    """The epochs of a run, one after another without end."""

    @property
    def store(self) -> Store: ...

    @property
    def plan(self) -> Plan:
        """The plan of an epoch; sampled epochs each have their own."""
        ...

    def locate(self, index: int) -> tuple[int, int]:
        """(epoch, index within it) of the run's batch `index`."""
        ...

    def open(self, epoch: int) -> tuple[Store, Plan]: ...


@dataclass(frozen=True)
class Same:
    """Epochs of one store and one plan."""

    store: Store
    plan: Plan

    def locate(self, index: int) -> tuple[int, int]:
        return divmod(index, self.plan.batches_per_epoch)

    def open(self, epoch: int) -> tuple[Store, Plan]:
        return self.store, self.plan


@dataclass(frozen=True)
class Batches:
    """The batches of a run by step, from 0 on without end: a pure function of (epochs, seed).

    Leaves are NumPy arrays, laid out as transformer/batch.py shows. Step k is the k-th batch of
    those that are not passed over.
    """

    epochs: Epochs
    seed: int | None
    skipped: tuple[int, ...] = ()  # positions, rising
    masking: Masking | None = None

    @property
    def store(self) -> Store:
        return self.epochs.store

    @property
    def plan(self) -> Plan:
        return self.epochs.plan

    def without(self, positions: Iterable[int]) -> Self:
        """Leaves these positions out, too."""
        return replace(self, skipped=tuple(sorted({*self.skipped, *positions})))

    def position(self, step: int) -> int:
        """The batch's index among all, skipped ones included."""
        before = [position - index for index, position in enumerate(self.skipped)]
        return step + bisect.bisect_right(before, step)

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, index within it) of a step."""
        return self.epochs.locate(self.position(step))

    def shape(self, step: int) -> Shape:
        epoch, index = self.locate(step)
        return self.epochs.open(epoch)[1].shape(self.seed, epoch, index)

    def layout(self, step: int) -> Rows:
        """Which examples are in which row."""
        return self._open(step)[1]

    def examples(self, step: int) -> Int[np.ndarray, " n"]:
        """Store indices of a batch's examples, row by row; line numbers of the corpus less 1."""
        return self.layout(step).examples

    def target_tokens(self, step: int) -> int:
        """Target tokens of a batch, padding left out."""
        store, rows = self._open(step)
        return int(store.lengths[rows.examples, 1].sum())

    def batch_digest(self, step: int) -> str:
        """CRC-32 of which examples are in which row, as 8 hexadecimal digits."""
        rows = self.layout(step)
        crc = zlib.crc32(rows.examples.astype("<i8").tobytes())
        return f"{zlib.crc32(rows.splits.astype('<i8').tobytes(), crc):08x}"

    def rows(self, step: int, start: int, stop: int) -> Batch:
        """Rows start to stop of a batch; no others are read."""
        store, rows = self._open(step)
        return self._arrays(step, store, rows.select(start, stop))

    def __getitem__(self, step: int) -> Batch:
        return self._arrays(step, *self._open(step))

    def _arrays(self, step: int, store: Store, rows: Rows) -> Batch:
        batch = assemble(store, rows)
        if self.masking is None:
            return batch
        position = None if self.seed is None else self.position(step)
        return self.masking(batch, rows.examples, position)

    def _open(self, step: int) -> tuple[Store, Rows]:
        epoch, index = self.locate(step)
        store, plan = self.epochs.open(epoch)
        return store, plan.rows(self.seed, epoch, index)


def in_order(store: Store, plan: Plan, masking: Masking | None = None) -> Batches:
    """For evaluation: steps 0 to `plan.batches_per_epoch` hold every example once, unshuffled.

    They come shape by shape; `examples(step)` says whose results they are.
    """
    return Batches(Same(store, plan), None, masking=masking)


def assemble(store: Store, rows: Rows) -> Batch:
    """The arrays of some rows: int32 ids, positions, segments and labels, float32 weights."""
    counts = np.diff(rows.splits)
    row = np.repeat(np.arange(len(counts)), counts)  # of each example, as all that follows
    segment = ranges(np.ones_like(counts), counts)

    def lay_out(side: int, width: int):
        lengths = store.lengths[rows.examples, side].astype(np.int64)
        begin = starts(lengths)
        first = begin[rows.splits[row]]  # where its row's tokens begin
        place = ranges(row * width + begin - first, lengths)

        def scatter(values, dtype: type[np.number] = np.int32) -> np.ndarray:
            result = np.zeros(len(counts) * width, dtype)
            result[place] = values
            return result.reshape(len(counts), width)

        tokens = store.gather(rows.examples, side)
        positions = scatter(ranges(np.zeros_like(lengths), lengths))
        return tokens, begin, positions, scatter(np.repeat(segment, lengths)), scatter

    tokens, _, positions, segments, scatter = lay_out(0, rows.shape.source)
    source = Source(ids=scatter(tokens), positions=positions, segments=segments)

    tokens, begin, positions, segments, scatter = lay_out(1, rows.shape.target)
    shifted = np.roll(tokens, 1)  # each sentence's EOS falls on the next one's start ...
    shifted[begin] = BOS  # ... and gives way to BOS
    target = Target(
        ids=scatter(shifted),
        positions=positions,
        segments=segments,
        labels=scatter(tokens),
        weights=scatter(1.0, np.float32),
    )
    return Batch(source=source, target=target)


class Prefetch(Generic[Item]):
    """An iterator over make(start), ..., make(stop - 1), computed up to `depth` ahead in a thread.

    An exception of `make` is raised where its item would have come. The thread ends when the
    iterator is exhausted or closed; `with prefetch(...) as batches` closes it.
    """

    def __init__(self, make: Callable[[int], Item], start: int, stop: int, depth: int):
        self.waited = 0.0  # seconds that the consumer has spent in `next`
        self._ready: queue.SimpleQueue[tuple[Item | None, BaseException | None]]
        self._ready = queue.SimpleQueue()
        self._slots = threading.Semaphore(depth)
        self._closed = threading.Event()
        self._inline = (make(step) for step in range(start, stop)) if depth == 0 else None
        # The thread knows its arguments and not this object, which can so be collected and closed.
        arguments = (make, range(start, stop), self._ready, self._slots, self._closed)
        self._thread = threading.Thread(target=_fill, args=arguments, name="prefetch", daemon=True)
        if depth:
            self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._closed.is_set():
            raise StopIteration
        started = time.perf_counter()
        try:
            if self._inline is not None:
                return next(self._inline)
            item, error = self._ready.get()
        finally:
            self.waited += time.perf_counter() - started
        if error is not None:
            self.close()
            raise error
        self._slots.release()
        return item  # pyright: ignore[reportReturnType]

    def close(self) -> None:
        """Ends the thread, after the item that it is making."""
        self._closed.set()
        self._slots.release()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)  # a daemon: what it still makes nobody waits for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._closed.set()
        self._slots.release()


def prefetch(make: Callable[[int], Item], start: int, stop: int, depth: int) -> Prefetch[Item]:
    """make(start), ..., make(stop - 1) in order, up to `depth` computed ahead; 0 = when asked."""
    return Prefetch(make, start, stop, depth)


def _fill(make, steps, ready, slots, closed) -> None:
    try:
        for step in steps:
            slots.acquire()
            if closed.is_set():
                return
            ready.put((make(step), None))
        ready.put((None, StopIteration()))
    except BaseException as error:  # handed to the consumer, who raises it
        ready.put((None, error))
