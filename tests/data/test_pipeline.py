import gc
import itertools
import struct
import threading
import time
import zlib

import jax
import numpy as np
import pytest

from transformer.batch import BOS, Batch
from transformer.data import (
    Batches,
    Portion,
    Same,
    Store,
    in_order,
    plan_buckets,
    plan_packed,
    prefetch,
)


@pytest.fixture(scope="module", params=["buckets", "packed"])
def plan(request, store):
    portions = [Portion(np.flatnonzero(store.lengths.max(axis=1) <= 31), 1.0)]
    if request.param == "packed":
        return plan_packed(
            store.lengths,
            portions,
            tokens_per_batch=331,
            packed_length=41,
            row_multiple=2,
        )
    return plan_buckets(
        store.lengths,
        portions,
        tokens_per_batch=331,
        shapes=5,
        row_multiple=2,
        length_multiple=3,
    )


@pytest.fixture(scope="module")
def batches(store, plan):
    return Batches(Same(store, plan), 13)


def assert_same(a: Batch, b: Batch):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def by_hand(store, rows):
    """The arrays of a batch, token by token, as the docstring of transformer/batch.py says."""
    shape = rows.shape
    source = {
        name: np.zeros((shape.rows, shape.source), np.int32)
        for name in ("ids", "positions", "segments")
    }
    target = {
        name: np.zeros((shape.rows, shape.target), np.int32)
        for name in ("ids", "positions", "segments", "labels", "weights")
    }
    for row in range(shape.rows):
        at_source = at_target = 0
        for segment, example in enumerate(
            rows.examples[rows.splits[row] : rows.splits[row + 1]], 1
        ):
            for position, token in enumerate(store.source(int(example))):
                source["ids"][row, at_source] = token
                source["positions"][row, at_source] = position
                source["segments"][row, at_source] = segment
                at_source += 1
            previous = BOS
            for position, token in enumerate(store.target(int(example))):
                target["ids"][row, at_target] = previous
                target["positions"][row, at_target] = position
                target["segments"][row, at_target] = segment
                target["labels"][row, at_target] = previous = token
                target["weights"][row, at_target] = 1
                at_target += 1
    return source, target


def test_batches_are_laid_out_as_documented(store, plan, batches):
    empty_rows = 0
    for step in range(plan.batches_per_epoch):
        batch, (source, target) = batches[step], by_hand(store, batches.layout(step))
        for side, expected in ((batch.source, source), (batch.target, target)):
            for name, array in expected.items():
                np.testing.assert_array_equal(getattr(side, name), array, err_msg=name)
        empty_rows += int((batch.source.segments.max(axis=1) == 0).sum())
    assert empty_rows > 0  # the case is there


def test_dtypes(batches):
    batch = batches[0]
    assert batch.target.weights.dtype == np.float32
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(batch)]
    assert sorted(map(str, dtypes)) == ["float32"] + ["int32"] * 7


def test_rows_unpack_to_the_sentences(store, plan, batches, tokenizer, sentence_pairs):
    seen = {}
    for step in range(plan.batches_per_epoch):
        batch, rows = batches[step], batches.layout(step)
        for row, (start, stop) in enumerate(itertools.pairwise(rows.splits)):
            for segment, example in enumerate(rows.examples[start:stop], 1):
                source = batch.source.ids[row][batch.source.segments[row] == segment]
                target = batch.target.labels[row][batch.target.segments[row] == segment]
                seen[int(example)] = tuple(tokenizer.decode([source.tolist(), target.tolist()]))
    kept = np.flatnonzero(store.lengths.max(axis=1) <= 31)
    assert seen == {int(i): sentence_pairs[i][:2] for i in kept} and len(kept) < 211


def test_a_step_is_the_same_directly_and_on_the_way(store, plan, batches):
    steps = plan.batches_per_epoch + 3  # over the border of an epoch
    passing = [batches[step] for step in range(steps)]
    for step in (steps - 1, 1, steps // 2):
        assert_same(Batches(Same(store, plan), 13)[step], passing[step])
    assert batches.locate(steps) == (1, 3)
    assert batches.shape(steps - 1) == batches.layout(steps - 1).shape


def test_another_seed_gives_other_batches(store, plan, batches):
    other = Batches(Same(store, plan), 14)
    assert any(
        batches.examples(step).tolist() != other.examples(step).tolist() for step in range(3)
    )


@pytest.mark.parametrize("hosts", [2, 3, "every row"])
def test_the_rows_of_all_hosts_are_the_batch(plan, batches, hosts):
    for step in range(0, plan.batches_per_epoch, 3):
        rows = batches.shape(step).rows
        count = rows if hosts == "every row" else hosts
        borders = np.linspace(0, rows, count + 1).astype(int).tolist()
        parts = [batches.rows(step, a, b) for a, b in itertools.pairwise(borders)]
        assert_same(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), batches[step])


def test_a_host_reads_only_its_rows(store, batches, monkeypatch):
    asked = []

    def gather(examples, side):
        asked.extend(examples.tolist())
        return Store.gather(store, examples, side)

    monkeypatch.setattr(store, "gather", gather)
    batches.rows(0, 0, 1)
    layout = batches.layout(0)
    first = layout.examples[: layout.splits[1]].tolist()
    assert asked == first * 2  # both sides


def test_in_order_everything_comes_once_and_can_be_put_back(store, plan):
    ordered = in_order(store, plan)
    seen = np.concatenate([ordered.examples(step) for step in range(plan.batches_per_epoch)])
    kept = np.flatnonzero(store.lengths.max(axis=1) <= 31)
    np.testing.assert_array_equal(np.sort(seen), kept)
    shapes = [ordered.shape(step) for step in range(plan.batches_per_epoch)]
    assert shapes == sorted(shapes, key=lambda shape: plan.shapes.index(shape))
    assert_same(ordered[0], in_order(store, plan)[plan.batches_per_epoch])


def test_batches_can_be_skipped(batches):
    fewer = batches.without([5, 0]).without([6, 5, 11])
    assert fewer.skipped == (0, 5, 6, 11) and batches.skipped == ()
    left = [index for index in range(40) if index not in fewer.skipped]
    assert [fewer.position(step) for step in range(len(left))] == left
    for step, index in enumerate(left[:9]):
        assert_same(fewer[step], batches[index])
        assert_same(fewer.rows(step, 0, 1), batches.rows(index, 0, 1))
        assert fewer.locate(step) == batches.locate(index)
        assert fewer.shape(step) == batches.shape(index)
        assert fewer.target_tokens(step) == batches.target_tokens(index)
        assert fewer.examples(step).tolist() == batches.examples(index).tolist()
        assert fewer.batch_digest(step) == batches.batch_digest(index)


def test_a_batchs_digest_is_of_its_examples_and_rows(batches):
    rows = batches.layout(3)
    content = struct.pack(f"<{len(rows.examples)}q", *rows.examples.tolist())
    content += struct.pack(f"<{len(rows.splits)}q", *rows.splits.tolist())
    assert batches.batch_digest(3) == f"{zlib.crc32(content):08x}"
    assert len({batches.batch_digest(step) for step in range(7)}) == 7


def alive():
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetch_gives_every_item_in_order_and_ends(depth):
    assert list(prefetch(lambda step: step * step, 3, 17, depth)) == [i * i for i in range(3, 17)]
    assert alive() == 0


def test_prefetch_works_ahead_but_not_further_than_its_depth():
    made = []
    with prefetch(lambda step: made.append(step) or step, 0, 100, 3) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == [0, 1, 2, 3]
    assert alive() == 0
    assert list(items) == []


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_item_would_come(depth):
    def make(step):
        if step == 5:
            raise OSError("disk on fire")
        return step

    items, seen = prefetch(make, 0, 9, depth), []
    with pytest.raises(OSError, match="disk on fire"):
        for item in items:
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]
    assert alive() == 0
    assert list(items) == []


def test_a_dropped_iterator_ends_its_thread():
    items = prefetch(lambda step: step, 0, 10**9, 2)
    assert next(items) == 0 and alive() == 1
    del items
    gc.collect()
    deadline = time.monotonic() + 5
    while alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert alive() == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_waiting_is_measured(depth):
    items = prefetch(lambda step: time.sleep(0.2), 0, 3, depth)
    list(items)
    assert items.waited >= 0.3  # of 0.6: a busy machine may come late to some of it
    ready = prefetch(lambda step: step, 0, 5, 5)
    next(ready)
    time.sleep(0.05)
    before = ready.waited
    list(ready)
    assert ready.waited - before < 0.05
