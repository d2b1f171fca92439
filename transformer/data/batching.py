"""The plan of an epoch, by length bucketing or packed rows: which examples make up each batch.

A plan is made from lengths and rates. A seed then decides, for each epoch, who goes with whom and
in which order; how many batches there are and of which shapes stays the same, so that a step is an
epoch and an index by division. Nothing here depends on how many hosts or devices will read.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int

from transformer.data.arrays import ranges, starts
from transformer.data.buckets import choose_boxes
from transformer.data.packing import pack
from transformer.errors import UserError
from transformer.rng import Stream

UNITS = 512  # lengths told apart when shapes are chosen: the work grows with their square


class Portion(NamedTuple):
    """Examples that all come equally often."""

    examples: Int[np.ndarray, " n"]
    rate: float  # times an epoch; of a fraction, others are drawn in every epoch


class Shape(NamedTuple):
    """Sizes of one batch: rows, and positions of source and target."""

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

    An epoch has all of `items`, and of each pool in `drawn` as many as it says.
    """

    shape: Shape
    items: Int[np.ndarray, " n"]  # int32
    drawn: tuple[tuple[Int[np.ndarray, " _"], int], ...]

    @property
    def count(self) -> int:
        """Items an epoch."""
        return len(self.items) + sum(count for _, count in self.drawn)


@dataclass(frozen=True, eq=False)
class Plan:
    """Every example as often an epoch as its rate says; a bucket's last batch has empty rows."""

    buckets: tuple[Bucket, ...]
    packed: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " ends"]] | None  # rows of examples
    tokens: int  # of source and target that are no padding, an epoch (on average, where drawn)

    @functools.cached_property
    def _batches(self) -> Int[np.ndarray, "3 batches"]:
        """Bounds of each batch, unshuffled: bucket, first item in the epoch's order, end."""
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
        """The shape of batch `index` of an epoch."""
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
        order = []
        for bucket in self.buckets:
            some = [pool[permutation(len(pool))[:count]] for pool, count in bucket.drawn]
            items = np.concatenate([bucket.items, *some])
            order.append(items[permutation(len(items))])
        return np.concatenate(order), permutation(self.batches_per_epoch)


def _permutations(seed: int | None, epoch: int) -> Callable[[int], Int[np.ndarray, " n"]]:
    """Draws one permutation after another; the identity if there is no seed."""
    if seed is None:
        return np.arange
    bits = np.random.Philox(np.random.SeedSequence([seed, Stream.DATA, epoch]))
    # Raw bits are the same in every NumPy; what Generator.permutation makes of them need not be.
    return lambda n: np.argsort(bits.random_raw(n), kind="stable")


def everything(lengths_n2: Int[np.ndarray, "n 2"]) -> list[Portion]:
    """Every example once an epoch."""
    return [Portion(np.arange(len(lengths_n2)), 1.0)]


def plan_buckets(
    lengths_n2: Int[np.ndarray, "n 2"],
    portions: Sequence[Portion],
    *,
    tokens_per_batch: int,
    shapes: int,
    row_multiple: int,
    length_multiple: int,
) -> Plan:
    """Pads each pair to one of a few shapes, chosen so that padding is least.

    Args:
        lengths_n2: tokens of each source and target, EOS included.
        portions: which examples come, and how often. Within a shape the fraction of a rate is
            rounded up, so that each example comes in some epoch.
        tokens_per_batch: rows × S and rows × T of a batch at most.
        shapes: how many shapes at most.
        row_multiple: rows of every batch are a multiple of this; see `_rows` for how many.
        length_multiple: S and T are multiples of this.

    Raises:
        UserError: a multiple of rows of the longest exceeds the budget.
    """
    lengths = lengths_n2[np.concatenate([portion.examples for portion in portions])]
    longest = int(lengths.max()) + -int(lengths.max()) % length_multiple
    unit = length_multiple * -(-longest // (UNITS * length_multiple))
    boxes, box_of = choose_boxes(-(-lengths // unit), shapes)
    ends = np.cumsum([len(portion.examples) for portion in portions])[:-1]
    groups = [  # of each portion, its examples box by box
        np.split(
            portion.examples[np.argsort(box, kind="stable")].astype(np.int32),
            np.cumsum(np.bincount(box, minlength=len(boxes)))[:-1],
        )
        for portion, box in zip(portions, np.split(box_of, ends), strict=True)
    ]
    contents = [_contents(pools, portions) for pools in zip(*groups, strict=True)]
    buckets = [
        _bucket(np.minimum(box * unit, longest), *content, tokens_per_batch, row_multiple)
        for box, content in zip(boxes, contents, strict=True)
    ]
    return Plan(tuple(buckets), None, _tokens(contents, lengths_n2.sum(axis=1)))


def plan_packed(
    lengths_n2: Int[np.ndarray, "n 2"],
    portions: Sequence[Portion],
    *,
    tokens_per_batch: int,
    packed_length: int,
    row_multiple: int,
) -> Plan:
    """Puts several pairs into each row of `packed_length` positions a side; one shape.

    Who shares a row is the same in every epoch; rows are shuffled. A row holds examples of one
    portion and comes as often as they do. Other arguments and errors are `plan_buckets`'s.
    """
    examples, sizes, pools, rows = [], [], [], 0
    for kept, _ in portions:
        row_of = pack(lengths_n2[kept], packed_length)
        # np.argsort(row_of, kind="stable"), faster.
        keys = row_of * len(kept) + np.arange(len(kept))
        examples.append(kept[np.sort(keys) % max(1, len(kept))])
        sizes.append(np.bincount(row_of))
        pools.append(np.arange(rows, rows := rows + len(sizes[-1]), dtype=np.int32))
    order, splits = np.concatenate(examples), np.cumsum(np.concatenate([[0], *sizes]))
    contents = _contents(pools, portions)
    box = np.array([packed_length] * 2)
    bucket = _bucket(box, *contents, tokens_per_batch, row_multiple)
    tokens = np.add.reduceat(lengths_n2.sum(axis=1)[order], splits[:-1])
    return Plan((bucket,), (order.astype(np.int32), splits), _tokens([contents], tokens))


Contents = tuple[Int[np.ndarray, " _"], tuple[tuple[Int[np.ndarray, " _"], int], ...]]


def _contents(pools: Sequence[Int[np.ndarray, " _"]], portions: Sequence[Portion]) -> Contents:
    """A bucket's items that come in every epoch, and the pools of which some are drawn."""
    items, drawn = [], []
    for pool, (_, rate) in zip(pools, portions, strict=True):
        items.append(np.tile(pool, int(rate)))
        # Not above what the rate says because 0.07 * 100 is 7.000000000000001.
        if len(pool) and (count := math.ceil((rate - int(rate)) * len(pool) - 1e-9)):
            drawn.append((pool, count))
    return np.concatenate(items), tuple(drawn)


def _tokens(contents: Sequence[Contents], sizes: Int[np.ndarray, " items"]) -> int:
    """Tokens of an epoch, given each item's; of a pool that is drawn from, on average."""
    total = 0.0
    for items, drawn in contents:
        total += int(sizes[items].sum(dtype=np.int64))
        total += sum(count * float(sizes[pool].mean()) for pool, count in drawn)
    return round(total)


def _bucket(
    box: Int[np.ndarray, " 2"],
    items: Int[np.ndarray, " n"],
    drawn: tuple[tuple[Int[np.ndarray, " _"], int], ...],
    tokens_per_batch: int,
    row_multiple: int,
) -> Bucket:
    source, target = map(int, box)
    most = tokens_per_batch // max(source, target) // row_multiple * row_multiple
    if most == 0:
        raise UserError(
            f"data.tokens_per_batch is {tokens_per_batch}, too few for data.row_multiple = "
            f"{row_multiple} rows of {max(source, target)} tokens: take at least "
            f"{row_multiple * max(source, target)}"
        )
    bucket = Bucket(Shape(most, source, target), items, drawn)
    shape = Shape(_rows(bucket.count, most, row_multiple), source, target)
    return dataclasses.replace(bucket, shape=shape)


def _rows(items: int, most: int, multiple: int) -> int:
    """Rows of a bucket's batches: even ones, rather than full ones and a last one of empty rows.

    The most that leave empty no more than 1 in 200 of all rows, with at most an eighth more batches
    than need be; where none do, those that leave least.
    """
    if not items:
        return most
    fewest = -(-items // most)
    batches = np.arange(fewest, fewest + fewest // 8 + 1)
    rows = -(-items // batches)
    rows += -rows % multiple
    empty = batches * rows - items
    good = 200 * empty <= items
    return int(rows[good.argmax() if good.any() else empty.argmin()])
