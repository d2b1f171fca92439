"""The plan of an epoch: which examples make up each batch, and in which shape.

A plan is made from lengths alone. A seed then decides, for each epoch, who goes with whom and in
which order; how many batches there are and of which shapes stays the same, so that a step is an
epoch and an index by division. Nothing here depends on how many hosts or devices will read.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Int

from transformer.data.arrays import ranges, starts
from transformer.data.buckets import choose_boxes
from transformer.data.packing import pack
from transformer.errors import UserError
from transformer.rng import Stream


class Shape(NamedTuple):
    """Of one batch: rows, and positions of source and target."""

    rows: int  # B
    source: int  # S
    target: int  # T


@dataclass(frozen=True)
class Rows:
    """Rows of one batch: row r holds `examples[splits[r]:splits[r + 1]]`; empty rows come last."""

    shape: Shape
    examples: Int[np.ndarray, " n"]
    splits: Int[np.ndarray, " ends"]  # rows + 1

    def select(self, start: int, stop: int) -> Self:
        """Rows start to stop alone: what one host reads."""
        if not 0 <= start <= stop <= self.shape.rows:
            raise ValueError(f"rows {start} to {stop} of a batch of {self.shape.rows}")
        splits = self.splits[start : stop + 1]
        return type(self)(
            self.shape._replace(rows=stop - start),
            self.examples[splits[0] : splits[-1]],
            splits - splits[0],
        )


@dataclass(frozen=True)
class Bucket:
    """What shares a shape. An item is one row: an example, or several packed together.

    Of its own items and those that smaller buckets passed on, `passed` go to bucket `to`, where
    their remainder costs less than a batch of mostly empty rows here.
    """

    shape: Shape
    items: Int[np.ndarray, " n"]  # int32
    passed: int
    to: int
    count: int  # items left for its own batches


@dataclass(frozen=True, eq=False)
class Plan:
    """Every example in exactly one batch an epoch; the last batch of a bucket has empty rows."""

    buckets: tuple[Bucket, ...]
    packed: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " ends"]] | None  # rows of examples
    tokens: int  # of source and target that are no padding, an epoch
    left_out: int  # examples too long for the plan

    @functools.cached_property
    def _batches(self) -> Int[np.ndarray, "3 batches"]:
        """Of each batch, unshuffled: bucket, first item in the epoch's order, end of its items."""
        items = np.array([bucket.count for bucket in self.buckets])
        rows = np.array([bucket.shape.rows for bucket in self.buckets])
        counts = -(-items // rows)
        bucket = np.repeat(np.arange(len(counts)), counts)
        first = starts(items)[bucket] + ranges(np.zeros_like(counts), counts) * rows[bucket]
        return np.stack([bucket, first, np.minimum(first + rows[bucket], np.cumsum(items)[bucket])])

    @functools.cached_property
    def batches_per_epoch(self) -> int:
        return self._batches.shape[1]

    @property
    def shapes(self) -> list[Shape]:
        """Every shape that occurs, smallest first."""
        return [bucket.shape for bucket in self.buckets if bucket.count]

    @property
    def padding(self) -> float:
        """Share of an epoch's positions, source and target, that are padding."""
        sizes = [b.shape.rows * (b.shape.source + b.shape.target) for b in self.buckets]
        return 1 - self.tokens / sum(sizes[bucket] for bucket in self._batches[0])

    def shape(self, seed: int | None, epoch: int, index: int) -> Shape:
        """Of batch `index` of an epoch."""
        _, batches = self._epoch(seed, epoch)
        return self.buckets[self._batches[0, batches[index]]].shape

    def rows(self, seed: int | None, epoch: int, index: int) -> Rows:
        """Batch `index` of an epoch; in corpus order, bucket by bucket, if `seed` is None."""
        order, batches = self._epoch(seed, epoch)
        bucket, first, end = self._batches[:, batches[index]]
        shape, items = self.buckets[bucket].shape, order[first:end]
        if self.packed is None:
            return Rows(shape, items, np.minimum(np.arange(shape.rows + 1), len(items)))
        examples, splits = self.packed
        sizes = np.zeros(shape.rows, np.int64)
        sizes[: len(items)] = splits[items + 1] - splits[items]
        chosen = examples[ranges(splits[items], sizes[: len(items)])]
        return Rows(shape, chosen, np.concatenate([[0], np.cumsum(sizes)]))

    @functools.cached_property
    def _epoch(self) -> Callable[[int | None, int], tuple[np.ndarray, np.ndarray]]:
        # Two epochs: where one ends, a reader ahead of the training loop is in the next already.
        return functools.lru_cache(maxsize=2)(self._draw)

    def _draw(
        self, seed: int | None, epoch: int
    ) -> tuple[Int[np.ndarray, " items"], Int[np.ndarray, " batches"]]:
        """An epoch: all items, bucket by bucket, and the order of the batches."""
        permutation = _permutations(seed, epoch)
        arriving = [[bucket.items] for bucket in self.buckets]
        order = []
        for bucket, parts in zip(self.buckets, arriving, strict=True):
            items = np.concatenate(parts)
            items = items[permutation(len(items))]
            order.append(items[: bucket.count])
            if bucket.passed:
                arriving[bucket.to].append(items[bucket.count :])
        return np.concatenate(order), permutation(self.batches_per_epoch)


def _permutations(seed: int | None, epoch: int) -> Callable[[int], Int[np.ndarray, " n"]]:
    """Draws one permutation after another; the identity if there is no seed."""
    if seed is None:
        return np.arange
    bits = np.random.Philox(np.random.SeedSequence([seed, Stream.DATA, epoch]))
    # Raw bits are the same in every NumPy; what Generator.permutation makes of them need not be.
    return lambda n: np.argsort(bits.random_raw(n), kind="stable")


def plan_buckets(
    lengths_n2: Int[np.ndarray, "n 2"],
    *,
    tokens_per_batch: int,
    max_length: int,
    shapes: int,
    row_multiple: int,
    length_multiple: int,
) -> Plan:
    """Pads each pair to one of a few shapes, chosen so that padding is least.

    Args:
        lengths_n2: tokens of each source and target, EOS included.
        tokens_per_batch: rows × S and rows × T of a batch at most.
        max_length: longer pairs, on either side, are left out.
        shapes: how many shapes at most.
        row_multiple: rows of every batch are a multiple of this, as many as the budget allows.
        length_multiple: S and T are multiples of this.

    Raises:
        UserError: nothing is short enough, or a multiple of rows of the longest exceeds the budget.
    """
    fits = _fitting(lengths_n2, max_length, "data.max_length")
    units_n2 = -(-lengths_n2 // length_multiple)
    units_n2[~fits] = 0
    boxes, box_of = choose_boxes(units_n2, shapes)
    members = np.argsort(box_of, kind="stable").astype(np.int32)  # those left out: box -1, first
    ends = np.searchsorted(box_of[members], np.arange(len(boxes) + 1))
    sizes = [_shape(box * length_multiple, tokens_per_batch, row_multiple) for box in boxes]
    buckets, counts = [], np.diff(ends)
    for index, shape in enumerate(sizes):
        passed, to = _pass_on(sizes, index, int(counts[index]))
        counts[index] -= passed
        counts[to] += passed
        items = members[ends[index] : ends[index + 1]]
        buckets.append(Bucket(shape, items, passed, to, int(counts[index])))
    tokens = int(lengths_n2[fits].sum(dtype=np.int64))
    return Plan(tuple(buckets), None, tokens, int((~fits).sum()))


def plan_packed(
    lengths_n2: Int[np.ndarray, "n 2"],
    *,
    tokens_per_batch: int,
    max_length: int,
    packed_length: int,
    row_multiple: int,
) -> Plan:
    """Puts several pairs into each row of `packed_length` positions a side; one shape.

    Who shares a row is the same in every epoch; rows are shuffled. Arguments and errors are
    `plan_buckets`'s.
    """
    fits = _fitting(lengths_n2, min(max_length, packed_length), "data.packed_length")
    kept = np.flatnonzero(fits).astype(np.int32)
    row_of = pack(lengths_n2[kept], packed_length)
    splits = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
    examples = kept[np.argsort(row_of, kind="stable")]
    shape = _shape(np.array([packed_length] * 2), tokens_per_batch, row_multiple)
    rows = np.arange(len(splits) - 1, dtype=np.int32)
    tokens = int(lengths_n2[kept].sum(dtype=np.int64))
    bucket = Bucket(shape, rows, 0, 0, len(rows))
    return Plan((bucket,), (examples, splits), tokens, len(lengths_n2) - len(kept))


def _fitting(lengths_n2: Int[np.ndarray, "n 2"], limit: int, key: str) -> Bool[np.ndarray, " n"]:
    fits = lengths_n2.max(axis=1) <= limit
    if not fits.any():
        raise UserError(
            f"{key} is {limit} tokens, but the shortest of {len(fits)} sentence pairs has "
            f"{lengths_n2.max(axis=1).min()}: raise it"
        )
    return fits


def _shape(box: Int[np.ndarray, " 2"], tokens_per_batch: int, row_multiple: int) -> Shape:
    source, target = map(int, box)
    rows = tokens_per_batch // max(source, target) // row_multiple * row_multiple
    if rows == 0:
        raise UserError(
            f"data.tokens_per_batch is {tokens_per_batch}, too few for data.row_multiple = "
            f"{row_multiple} rows of {max(source, target)} tokens: take at least "
            f"{row_multiple * max(source, target)}"
        )
    return Shape(rows, source, target)


def _pass_on(shapes: list[Shape], index: int, count: int) -> tuple[int, int]:
    """How many of a bucket's items go to which larger bucket: (0, index) if none."""
    own = shapes[index]
    remainder = count % own.rows
    larger = [
        (shape.source + shape.target, to)
        for to, shape in enumerate(shapes)
        if to > index and shape.source >= own.source and shape.target >= own.target
    ]
    if not remainder or not larger:
        return 0, index
    size, to = min(larger)
    stays = own.rows * (own.source + own.target)
    return (remainder, to) if remainder * size < stays else (0, index)
