"""A split as tokens, in files that several processes or machines write, each some of them.

`<folder>/00000.npz` holds the first 65,536 pairs, the next file the next: `ids`, `lengths` and
`pairs` as in a store (data/store.py), where duplicates are marked later. What a shard holds depends
on the text and the tokenizer alone, so it does not matter who writes it.
"""

import functools
import io
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from transformer import files
from transformer.data.chunks import CHUNK, PAIR, Chunk, encoded_some
from transformer.data.pairs import Pair
from transformer.data.store import ids_dtype
from transformer.data.tokenizers import Tokenizer
from transformer.errors import UserError
from transformer.files import AnyPath

CHUNKS = 8  # in a shard


def write(
    folder: AnyPath, pairs: Iterator[Pair], tokenizer: Tokenizer, mine: Callable[[int], bool]
) -> int:
    """Writes the shards that are not there yet; returns how many pairs there are in all.

    Args:
        folder: of this split, this text and this tokenizer alone.
        pairs: all of the split.
        tokenizer: what encodes them.
        mine: whether a shard, by its number, is this process's to write.

    Raises:
        UserError: there are no pairs, or their text cannot be read as a whole.
    """
    dtype = ids_dtype(tokenizer.size)

    @functools.cache
    def is_wanted(number: int) -> bool:
        return mine(number) and not _path(folder, number).exists()

    total, written = 0, []
    encoded = encoded_some(pairs, tokenizer, lambda chunk: is_wanted(chunk // CHUNKS))
    try:
        for number, some in itertools.groupby(enumerate(encoded), lambda item: item[0] // CHUNKS):
            counts, chunks = zip(*(item for _, item in some), strict=True)
            total += sum(counts)
            if is_wanted(number):
                files.write(_path(folder, number), _packed(chunks, dtype))
                written.append(number)
    except UserError:  # the text is not what it was: its reader says so at its end
        for number in written:
            _path(folder, number).unlink(missing_ok=True)
        raise
    if not total:
        raise UserError("the corpus has no sentence pairs: check its section under data")
    return total


def count(pairs: int) -> int:
    """How many shards so many pairs have."""
    return -(-pairs // (CHUNK * CHUNKS))


def are_whole(folder: AnyPath, shards: int) -> bool:
    """Whether all shards of a split are there."""
    return all(_path(folder, number).exists() for number in range(shards))


def read(folder: AnyPath, shards: int, vocab_size: int) -> Iterator[Chunk]:
    """The pairs of all shards. Raises UserError where one is missing or damaged."""
    for number in range(shards):
        path = _path(folder, number)
        try:
            with np.load(io.BytesIO(path.read_bytes())) as arrays:
                chunk = Chunk(*(arrays[name] for name in Chunk._fields))
            _check(chunk, vocab_size)
        except Exception as error:  # NumPy and zipfile raise many, of many kinds
            raise UserError(
                f"{path} is missing or damaged ({error}): delete it, and prepare the corpus again"
            ) from error
        yield chunk


def _check(chunk: Chunk, vocab_size: int) -> None:
    """Raises ValueError where a shard is none of a tokenizer of so many pieces."""
    ids, lengths, pairs = chunk
    fits = (
        all(array.ndim == 1 for array in chunk)
        and pairs.dtype == PAIR
        and ids.dtype == ids_dtype(vocab_size)
        and lengths.dtype == np.int32
        and len(lengths) == 2 * len(pairs) > 0
        and lengths.min() >= 1
        and lengths.sum(dtype=np.int64) == len(ids)
        and ids.max() < vocab_size
    )
    if not fits:
        raise ValueError("its arrays do not fit together, or the tokenizer")


def discard(folder: AnyPath, shards: int) -> None:
    """Deletes the shards of a split."""
    for number in range(shards):
        _path(folder, number).unlink(missing_ok=True)


def _packed(chunks: Sequence[Chunk], dtype: np.dtype) -> bytes:
    ids, lengths, pairs = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    content = io.BytesIO()
    np.savez(content, ids=ids.astype(dtype), lengths=lengths.astype(np.int32), pairs=pairs)
    return content.getvalue()


def _path(folder: AnyPath, number: int) -> AnyPath:
    return folder / f"{number:05d}.npz"
