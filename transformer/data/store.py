"""A corpus tokenised once, into files that are mapped into memory.

`<cache_dir>/<key>/tokens.bin` holds every sentence's ids, EOS included, end to end: source 0,
target 0, source 1, target 1 ... (uint16, or int32 for vocabularies above 65,536).
`offsets.npy` (int64, 2n + 1) says where each begins, `pairs.npy` (`PAIR`) what else is known of
each pair. Pair i is line i + 1 of the corpus, whatever is wrong with it. The key is a hash of all
that went in, so a folder is never updated: it is right, or it is damaged and built anew.
"""

import contextlib
import gc
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8, UInt16, UInt64

from transformer import files
from transformer.data.arrays import ranges
from transformer.data.chunks import PAIR, Chunk, encoded
from transformer.data.pairs import Pair, Problem
from transformer.data.tokenizers import Tokenizer
from transformer.errors import UserError

log = logging.getLogger(__name__)

VERSION = 5  # of the layout above, and of how text is held to its fingerprint: raise it with them
QUIET = 10.0  # seconds without a word, at most, while a store is built
TRIES = 10  # to put a store in its place, while others put, delete and mend theirs

WRITTEN = ("tokens.bin", "offsets.npy", "pairs.npy")


class Store:
    """n tokenised sentence pairs. Every sentence ends in EOS."""

    def __init__(
        self,
        tokens: Integer[np.ndarray, " tokens"],
        offsets: Int[np.ndarray, " ends"],
        pairs: np.ndarray,
    ):
        self._tokens = tokens
        self._offsets = offsets
        self.pairs = pairs  # PAIR of each
        self.lengths: Int[np.ndarray, "n 2"] = (
            np.diff(offsets).astype(np.int32).reshape(-1, 2)
        )  # tokens of source and target, EOS included

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """What it takes on a disk."""
        return sum(array.nbytes for array in (self._tokens, self._offsets, self.pairs))

    @property
    def problems(self) -> UInt8[np.ndarray, " n"]:
        """`Problem`s of each pair, as far as the corpus alone tells them."""
        return self.pairs["problems"]

    @property
    def parts(self) -> UInt16[np.ndarray, " n"]:
        """Which part of a mixture each pair is of; 0 where there is none."""
        return self.pairs["part"]

    @property
    def digests(self) -> UInt64[np.ndarray, " n"]:
        """Equal for pairs of equal text, normalised; of stores made by the same tokenizer."""
        return self.pairs["digest"]

    def source(self, index: int) -> Integer[np.ndarray, " length"]:
        """Ids of one source sentence, EOS last (uint16 or int32)."""
        return self._tokens[self._offsets[2 * index] : self._offsets[2 * index + 1]]

    def target(self, index: int) -> Integer[np.ndarray, " length"]:
        """Ids of one target sentence, EOS last (uint16 or int32)."""
        return self._tokens[self._offsets[2 * index + 1] : self._offsets[2 * index + 2]]

    def gather(self, examples: Int[np.ndarray, " n"], side: int) -> Int[np.ndarray, " total"]:
        """Ids of many sentences end to end, int32; `side` is 0 for source, 1 for target."""
        where = ranges(self._offsets[2 * examples + side], self.lengths[examples, side])
        return self._tokens[where].astype(np.int32)


def store_key(corpus: str, tokenizer: str) -> str:
    """The name of the store made of these two fingerprints by this version of the code."""
    return hashlib.sha256(f"{VERSION} {corpus} {tokenizer}".encode()).hexdigest()[:20]


def open_store(
    cache_dir: Path, pairs: Callable[[], Iterator[Pair]], tokenizer: Tokenizer, *, key: str
) -> Store:
    """The store called `key`, built first if it is not there whole.

    Args:
        cache_dir: folder of stores; made if missing.
        pairs: starts a pass over the corpus.
        tokenizer: what encodes it.
        key: `store_key` of corpus and tokenizer.

    Raises:
        UserError: the corpus is bad or empty, or `cache_dir` cannot be written.
    """
    return open_chunks(
        Path(cache_dir) / key, lambda: encoded(pairs(), tokenizer), vocab_size=tokenizer.size
    )


def open_chunks(
    folder: Path,
    chunks: Callable[[], Iterator[Chunk]],
    *,
    vocab_size: int,
    verb: str = "tokenised",
) -> Store:
    """The store in `folder`, made of `chunks` first if it is not there whole.

    Any number of processes may do this at once: each builds in a folder of its own, the first to
    finish renames it into place, and the others drop theirs. What a store has mapped stays whole
    when its folder is deleted.

    Args:
        folder: of this store alone.
        chunks: starts a pass over its content.
        vocab_size: of the tokenizer; it decides how wide ids are.
        verb: what is done with each pair, for the log.

    Raises:
        UserError: there are no pairs, or `folder` cannot be written.
    """
    if store := find_store(folder, vocab_size=vocab_size):
        return store
    dtype = ids_dtype(vocab_size)
    try:
        files.sweep(folder.parent)  # a cache, all of it ours
        with files.building(folder) as unfinished:
            with _without_collector():
                _build(unfinished, chunks(), dtype, verb)
            store = _read(unfinished, dtype)
            _move_into_place(unfinished, folder, dtype)
        return store
    except OSError as error:
        raise UserError(
            f"data.cache_dir={folder.parent}: {error.strerror or error}; name a folder that can be "
            "written, with room in it"
        ) from error


def find_store(folder: Path, *, vocab_size: int) -> Store | None:
    """The store in `folder`; None where it is not there whole."""
    try:
        return _read(folder, ids_dtype(vocab_size))
    except FileNotFoundError as error:
        if folder.exists():
            log.warning("%s is damaged (%s is missing): building it anew", folder, error.filename)
    except (OSError, EOFError, ValueError) as error:
        log.warning("%s is damaged (%s): building it anew", folder, error)
    return None


def ids_dtype(vocab_size: int) -> np.dtype:
    """What ids of a vocabulary are kept as."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Python's search for cycles, paused.

    New lists, one for each sentence, would start it again and again. Sentences make no cycles.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(folder: Path, dtype: np.dtype) -> Store:
    expected = files.read_json(folder / "sums.json")
    if {*expected} != {*WRITTEN}:
        raise ValueError("sums.json does not name its files")
    for name, digest in expected.items():
        if _digest_of(folder / name) != digest:
            raise ValueError(f"{name} is not what was written")
    offsets = np.load(folder / "offsets.npy", mmap_mode="r")
    pairs = np.load(folder / "pairs.npy")
    size = (folder / "tokens.bin").stat().st_size
    if size != offsets[-1] * dtype.itemsize:
        raise ValueError(f"tokens.bin has {size} bytes, not {offsets[-1] * dtype.itemsize}")
    store = Store(np.memmap(folder / "tokens.bin", dtype, mode="r"), offsets, pairs)
    if offsets[0] != 0 or store.lengths.min() < 1:
        raise ValueError("offsets.npy does not rise from 0")
    if pairs.dtype != PAIR or len(pairs) != len(store):
        raise ValueError(f"pairs.npy does not describe {len(store)} pairs")
    return store


def _build(folder: Path, chunks: Iterator[Chunk], dtype: np.dtype, verb: str) -> None:
    lengths, known = [np.zeros(1, np.int64)], []
    started = said = time.monotonic()
    with open(folder / "tokens.bin", "wb") as file:
        for ids, lengths_of_chunk, pairs in chunks:
            lengths.append(lengths_of_chunk)
            ids.astype(dtype).tofile(file)
            known.append(pairs)
            if (now := time.monotonic()) - said >= QUIET:
                said = now
                log.info("%s %d sentence pairs so far", verb, sum(map(len, known)))
    if not known:
        raise UserError("the corpus has no sentence pairs: check its section under data")
    pairs = np.concatenate(known)
    again = np.ones(len(pairs), bool)
    again[np.unique(pairs["digest"], return_index=True)[1]] = False
    pairs["problems"][again] |= int(Problem.DUPLICATES)
    for name, content in (("offsets", np.cumsum(np.concatenate(lengths))), ("pairs", pairs)):
        with open(folder / f"{name}.npy", "wb") as file:
            np.save(file, content)
    for name in WRITTEN:
        files.sync(folder / name)
    files.write_json(folder / "sums.json", {name: _digest_of(folder / name) for name in WRITTEN})
    log.info("%s %d sentence pairs in %.1f s", verb, len(pairs), time.monotonic() - started)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move_into_place(unfinished: Path, folder: Path, dtype: np.dtype) -> None:
    """Gives a store its name; leaves it where another builder's whole one has that."""
    for left in reversed(range(TRIES)):
        try:
            os.rename(unfinished, folder)
            return
        except OSError:  # something is there: another builder's work, or what was damaged
            if not left:
                raise
        try:
            _read(folder, dtype)
            return
        except (OSError, EOFError, ValueError):  # damaged; or gone meanwhile
            # Moved aside before it is deleted: whoever has it mapped keeps what they mapped.
            damaged = unfinished.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, damaged)
            files.discard(damaged)
