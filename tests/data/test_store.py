import gc
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from transformer import files
from transformer.batch import EOS
from transformer.data import Pair, Problem, SentencePieceTokenizer, chunks, open_store, store_key
from transformer.data import store as store_module
from transformer.errors import UserError


class Counted:
    """A corpus that counts how often it is read."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.passes = 0

    def __call__(self):
        self.passes += 1
        return iter(self.pairs)


@pytest.fixture
def corpus(sentence_pairs):
    return Counted(sentence_pairs)


def assert_holds(store, pairs, tokenizer):
    assert len(store) == len(pairs)
    for index, (source, target, *_) in enumerate(pairs):
        encoded = [[*ids, EOS] for ids in tokenizer.encode([source, target])]
        np.testing.assert_array_equal(store.source(index), encoded[0])
        np.testing.assert_array_equal(store.target(index), encoded[1])
        np.testing.assert_array_equal(store.lengths[index], [len(ids) for ids in encoded])


def test_a_store_holds_the_corpus_and_is_built_once(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 29)  # 211 pairs in 8 chunks, the last one short
    for _ in range(2):
        store = open_store(tmp_path, corpus, tokenizer, key="k")
        assert_holds(store, corpus.pairs, tokenizer)
    assert corpus.passes == 1
    assert store.lengths.dtype == np.int32 and store.source(0).dtype == np.uint16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]


def test_a_store_that_takes_long_says_how_far_it_is(
    corpus, tokenizer, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(chunks, "CHUNK", 100)
    monkeypatch.setattr(store_module, "QUIET", 0.0)
    caplog.set_level("INFO", "transformer")
    open_store(tmp_path, corpus, tokenizer, key="k")
    said = [line for line in caplog.messages if line.endswith("so far")]
    assert said == [f"tokenised {count} sentence pairs so far" for count in (100, 200, 211)]


def test_gather_is_many_sentences_end_to_end(store):
    examples = np.array([5, 0, 210, 5])
    for side, one in ((0, store.source), (1, store.target)):
        expected = np.concatenate([one(i) for i in examples.tolist()])
        np.testing.assert_array_equal(store.gather(examples, side), expected)
        assert store.gather(examples, side).dtype == np.int32


def test_what_is_known_of_each_pair(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2)  # duplicates are found across chunks
    pairs = [
        Pair("la casa", "the house"),
        Pair("la casa", "the dog", Problem.NOT_UTF8, 1),
        Pair(" la\tcasa\u2028", "the house", part=1),  # the same, normalised
        Pair("la", "casa the house", part=2),  # the same words, otherwise cut
        Pair("la casa", "\x07", part=2),  # nothing that the tokenizer keeps
        Pair("la casa", "the house", Problem.CONTROL_CHARACTERS, 2),
    ]
    for _ in range(2):  # built, and read again
        store = open_store(tmp_path, lambda: iter(pairs), tokenizer, key="k")
        again = Problem.DUPLICATES
        control = Problem.CONTROL_CHARACTERS
        expected = [0, Problem.NOT_UTF8, again, 0, Problem.EMPTY, again | control]
        assert store.problems.tolist() == expected
        assert store.parts.tolist() == [0, 1, 1, 2, 2, 2]
        assert len(set(store.digests.tolist())) == 4
    # In every process and on every machine.
    (digest,) = {int(store.digests[i]) for i in (0, 2, 5)}
    ids = np.concatenate([store.source(0), store.target(0)]).tolist()
    assert digest == sum(splitmix(place << 32 | id) for place, id in enumerate(ids)) % 2**64


def splitmix(state: int) -> int:
    """The output after a state (Steele et al. 2014, Fig. 16)."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_the_order_of_words_is_in_a_digest(tokenizer, tmp_path):
    pairs = [
        Pair("la casa", "the house"),
        Pair("casa la", "the house"),
        Pair("the house", "la casa"),
    ]
    store = open_store(tmp_path, lambda: iter(pairs), tokenizer, key="k")
    assert len(set(store.digests.tolist())) == 3


def test_a_large_vocabulary_takes_wider_integers(corpus, tmp_path):
    class Large(SentencePieceTokenizer):
        def __init__(self):
            self.size, self.fingerprint, self.composes = 70_001, "", True

        def encode(self, sentences):
            return [[70_000, 3] for _ in sentences]

    store = open_store(tmp_path, corpus, Large(), key="k")
    np.testing.assert_array_equal(store.target(210), [70_000, 3, EOS])


@pytest.mark.parametrize("was_on", [True, False])
def test_no_cycles_are_searched_for_while_a_store_is_built(
    sentence_pairs, tokenizer, tmp_path, was_on
):
    on = []

    def corpus():
        on.append(gc.isenabled())
        yield sentence_pairs[0]
        raise UserError("the corpus is bad")

    try:
        if not was_on:
            gc.disable()
        with pytest.raises(UserError, match="the corpus is bad"):
            open_store(tmp_path, corpus, tokenizer, key="k")
        assert on == [False]
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "pairs.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped"])
def test_a_damaged_store_is_built_anew(corpus, tokenizer, tmp_path, name, damage, caplog):
    open_store(tmp_path, corpus, tokenizer, key="k")
    path = tmp_path / "k" / name
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
        path.write_bytes({"empty": b"", "short": content[:-16], "flipped": flipped}[damage])
    assert_holds(open_store(tmp_path, corpus, tokenizer, key="k"), corpus.pairs, tokenizer)
    assert corpus.passes == 2 and "damaged" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]


def test_offsets_that_do_not_rise_are_damage(corpus, tokenizer, tmp_path):
    open_store(tmp_path, corpus, tokenizer, key="k")
    offsets = np.load(tmp_path / "k" / "offsets.npy")
    offsets[5:9] = offsets[5:9][::-1]
    np.save(tmp_path / "k" / "offsets.npy", offsets)
    assert_holds(open_store(tmp_path, corpus, tokenizer, key="k"), corpus.pairs, tokenizer)


def test_builders_at_the_same_time_do_not_hurt_each_other(corpus, tokenizer, tmp_path):
    together = threading.Barrier(3, timeout=30)

    def slowly():
        for index, pair in enumerate(corpus.pairs):
            if index == 17:
                together.wait()  # all three are in the middle of building
            yield pair

    stores = []
    threads = [
        threading.Thread(
            target=lambda: stores.append(open_store(tmp_path, slowly, tokenizer, key="k"))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 3
    for store in stores:
        assert_holds(store, corpus.pairs, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]


def test_an_error_leaves_nothing_behind(corpus, tokenizer, tmp_path):
    def failing():
        yield corpus.pairs[0]
        raise UserError("file:2: bad")

    with pytest.raises(UserError, match="file:2"):
        open_store(tmp_path, failing, tokenizer, key="k")
    with pytest.raises(UserError, match="no sentence pairs"):
        open_store(tmp_path, lambda: iter([]), tokenizer, key="k")
    assert not list(tmp_path.iterdir())


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from transformer.data import Pair, SentencePieceTokenizer, open_store

    def pairs():
        yield Pair("la casa", "the house")
        os.kill(os.getpid(), signal.SIGKILL)

    tokenizer = SentencePieceTokenizer(Path(sys.argv[2]).read_bytes())
    open_store(Path(sys.argv[1]), pairs, tokenizer, key="k")
    """
)


def test_a_killed_builder_is_survived_and_swept_up_later(corpus, tokenizer, tmp_path):
    model = tmp_path / "m"
    model.write_bytes(tokenizer._processor.serialized_model_proto())
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, cache, model])
    assert killed.returncode == -9
    (left,) = cache.iterdir()
    assert left.name.startswith(".k.")

    assert_holds(open_store(cache, corpus, tokenizer, key="k"), corpus.pairs, tokenizer)
    assert left.exists()  # it might have been another builder's, at work
    shutil.rmtree(cache / "k")
    long_ago = time.time() - 2 * files.ABANDONED
    os.utime(left, (long_ago, long_ago))
    open_store(cache, corpus, tokenizer, key="k")
    assert [path.name for path in cache.iterdir()] == ["k"]


def test_a_folder_that_cannot_be_made_is_refused(corpus, tokenizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache_dir=.*file.*: Not a directory"):
        open_store(tmp_path / "file" / "cache", corpus, tokenizer, key="k")


def test_the_key_depends_on_everything(monkeypatch):
    keys = {store_key("a", "b"), store_key("a", "c"), store_key("b", "b")}
    monkeypatch.setattr(store_module, "VERSION", store_module.VERSION + 1)
    assert len(keys | {store_key("a", "b")}) == 4
