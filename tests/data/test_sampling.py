"""Subword sampling: epochs tokenised anew, the same in whatever order and process they are made."""

import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import jax
import numpy as np
import pytest

from transformer.data import Batches, Portion, Sampled, plan_buckets, plan_packed

LIMIT = 23


def make_plans(store, kind):
    portions = [Portion(np.flatnonzero(store.lengths.max(axis=1) <= LIMIT), 1.0)]
    options = {"portions": portions, "tokens_per_batch": 251, "row_multiple": 2}
    if kind == "packed":
        return functools.partial(plan_packed, packed_length=41, **options)
    return functools.partial(plan_buckets, shapes=3, length_multiple=2, **options)


def sampled(store, tokenizer, folder, kind: Any = "buckets", **changes: Any):
    options: dict[str, Any] = {"plan_key": kind, "probability": 0.3, "seed": 5, "max_length": LIMIT}
    epochs = Sampled(store, tokenizer, folder, make_plans(store, kind), **{**options, **changes})
    return Batches(epochs, options["seed"])


def digests(batches, steps):
    """Of every number in these batches."""
    leaves = (jax.tree.leaves(batches[step]) for step in steps)
    return [[leaf.tobytes() for leaf in batch] for batch in leaves]


def first_of(batches, epoch):
    """The first step of an epoch."""
    step = 0
    while batches.locate(step)[0] < epoch:
        step += 1
    return step


@pytest.mark.parametrize("kind", ["buckets", "packed"])
def test_a_step_is_the_same_directly_and_on_the_way(store, tokenizer, tmp_path, kind):
    batches = sampled(store, tokenizer, tmp_path / "a", kind)
    end = first_of(batches, 3) + 2
    passing = digests(batches, range(end))
    for name in "ab":  # with what the first run left in the cache, and without
        again = sampled(store, tokenizer, tmp_path / name, kind)
        for step in (end - 1, 1, end // 2):
            assert digests(again, [step]) == passing[step : step + 1]
            assert again.locate(step) == batches.locate(step)
            assert again.batch_digest(step) == batches.batch_digest(step)


@pytest.mark.parametrize("kind", ["buckets", "packed"])
def test_every_epoch_has_every_example_once_cut_otherwise(store, tokenizer, tmp_path, kind):
    batches = sampled(store, tokenizer, tmp_path, kind)
    fits = np.flatnonzero(store.lengths.max(axis=1) <= LIMIT)
    cut = []
    for epoch in range(3):
        steps = range(first_of(batches, epoch), first_of(batches, epoch + 1))
        seen = np.concatenate([batches.examples(step) for step in steps])
        np.testing.assert_array_equal(np.sort(seen), fits)
        epoch_store, plan = batches.epochs.open(epoch)
        assert len(steps) == plan.batches_per_epoch
        assert epoch_store.lengths[fits].max() <= LIMIT
        for step in steps:
            shape = batches.shape(step)
            assert shape.rows * max(shape.source, shape.target) <= 251
            rows = batches.rows(step, 0, shape.rows)
            assert batches.target_tokens(step) == rows.target.weights.sum()
        texts = [
            tokenizer.decode([side(i).tolist() for i in range(len(store))])
            for some in (store, epoch_store)
            for side in (some.source, some.target)
        ]
        assert texts[:2] == texts[2:]
        cut.append([epoch_store.target(i).tolist() for i in range(len(store))])
    assert cut[0] != cut[1] != cut[2] != cut[0]


def test_what_gets_too_long_keeps_its_pieces(store, tokenizer, tmp_path):
    batches = sampled(store, tokenizer, tmp_path, probability=0.9)
    epoch_store, _ = batches.epochs.open(0)
    tight = int(store.lengths[:, 1].argmax())
    assert store.lengths[tight, 1] <= LIMIT or (
        epoch_store.target(tight).tolist() == store.target(tight).tolist()
    )
    same = [epoch_store.target(i).tolist() == store.target(i).tolist() for i in range(len(store))]
    assert 0 < sum(same) < len(same)


def test_a_cut_is_the_examples_own(store, tokenizer, tmp_path, monkeypatch):
    """Whatever the chunk, the seed, the epoch and the side decide."""
    one = sampled(store, tokenizer, tmp_path / "a").epochs.open(1)[0]
    monkeypatch.setattr("transformer.data.sampling.CHUNK", 13)
    two = sampled(store, tokenizer, tmp_path / "b").epochs.open(1)[0]
    examples = np.arange(len(store))
    for side in (0, 1):
        np.testing.assert_array_equal(one.gather(examples, side), two.gather(examples, side))
    for changes in ({"seed": 6}, {"probability": 0.2}):
        other = sampled(store, tokenizer, tmp_path / "a", **changes).epochs.open(1)[0]
        assert other.gather(examples, 0).tolist() != one.gather(examples, 0).tolist()


def test_two_epochs_stay_on_disk_and_counts_spare_the_others(store, tokenizer, tmp_path):
    batches = sampled(store, tokenizer, tmp_path)
    far = first_of(batches, 5) + 1
    expected = digests(batches, [far])
    (folder,) = tmp_path.iterdir()
    (counts,) = folder.glob("batches-*.json")
    assert sorted(p.name for p in folder.iterdir()) == ["4", "5", counts.name]

    def opened(again):
        """Which epochs are made to find a far step."""
        made = []
        open_epoch = again.epochs.open
        again.epochs.open = lambda epoch: made.append(epoch) or open_epoch(epoch)
        assert digests(again, [far]) == expected
        return set(made)

    assert opened(sampled(store, tokenizer, tmp_path)) == {5}
    good = counts.read_text()
    numbers, crc = json.loads(good)
    for bad in ("", "[]", "3", good[:-4], json.dumps([[n + 1 for n in numbers], crc])):
        counts.write_text(bad)
        assert opened(sampled(store, tokenizer, tmp_path)) == {0, 1, 2, 3, 4, 5}
        assert json.loads(counts.read_text())[0][:5] == numbers[:5]
    # Another plan of the same sentences has counts of its own.
    assert opened(sampled(store, tokenizer, tmp_path, plan_key="other")) == {0, 1, 2, 3, 4, 5}
    assert len(list(folder.glob("batches-*.json"))) == 2


def test_threads_may_ask_at_once(store, tokenizer, tmp_path):
    expected = digests(sampled(store, tokenizer, tmp_path / "alone"), range(60, 75))
    batches = sampled(store, tokenizer, tmp_path / "both")
    found = {}

    def ask(name):
        found[name] = digests(batches, range(60, 75))

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[name] for name in range(3)] == [expected] * 3


def test_what_is_mapped_stays_when_its_folder_is_swept(store, tokenizer, tmp_path):
    ahead, behind = (sampled(store, tokenizer, tmp_path) for _ in range(2))
    expected = digests(behind, [0])
    ahead[first_of(ahead, 4)]
    assert digests(behind, [0]) == expected


def test_an_epoch_that_another_run_is_in_is_not_deleted(store, tokenizer, tmp_path):
    ahead, behind = (sampled(store, tokenizer, tmp_path) for _ in range(2))
    behind.epochs.open(0)
    ahead.epochs.open(4)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"0", "4"}
    behind.epochs.open(5)
    behind.epochs.open(6)  # where two are open at most: 0 is over
    assert {path.name for path in folder.iterdir()} == {"4", "5", "6"}


def test_what_was_killed_at_work_on_other_draws_is_deleted(store, tokenizer, tmp_path):
    sampled(store, tokenizer, tmp_path, seed=1).epochs.open(0)
    (folder,) = tmp_path.iterdir()
    left = folder / f".3.{'0' * 32}"
    left.mkdir()
    os.utime(left, (0, 0))
    sampled(store, tokenizer, tmp_path, seed=2)
    assert [path.name for path in folder.iterdir()] == ["0"]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import tests.data.test_sampling as here
    from transformer.data import Pair, SentencePieceTokenizer, open_store, store
    root = Path(sys.argv[1])
    tokenizer = SentencePieceTokenizer((root / "model").read_bytes())
    lines = (root / "text").read_text().split(";")
    pairs = [Pair(*line.split("|")) for line in lines]
    corpus = open_store(root / "tokens", lambda: iter(pairs), tokenizer, key="k")
    batches = here.sampled(corpus, tokenizer, root / "sampled")
    if sys.argv[2] == "kill":
        batches[0]
        move = store._move_into_place
        store._move_into_place = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    print(batches.locate(70), [batches.batch_digest(step) for step in range(60, 70)])
    print(zlib.crc32(b"".join(sum(here.digests(batches, range(60, 70)), []))))
    """
).replace("import os, signal", "import os, signal, zlib")


def test_a_fresh_process_after_a_kill_gives_the_same(sentence_pairs, tokenizer, tmp_path):
    outputs = []
    for name in ("killed", "alone"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model").write_bytes(tokenizer._processor.serialized_model_proto())
        (folder / "text").write_text(";".join("|".join(pair[:2]) for pair in sentence_pairs))
        if name == "killed":
            killed = subprocess.run([sys.executable, "-c", KILLED, folder, "kill"], check=False)
            assert killed.returncode == -9
        done = subprocess.run(
            [sys.executable, "-c", KILLED, folder, "go"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and outputs[0].startswith("(")
