"""A corpus tokenised once, on all cores of one machine or several, for all runs that read it."""

import logging
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer import files, run_directory, runtime
from transformer.config import Config
from transformer.data import Store, Tokenizer, prepared, selection, shards, store_key
from transformer.data.chunks import Chunk
from transformer.data.pairs import Problem
from transformer.data.store import open_chunks
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.prepared_data import PreparedData

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")


def prepare(config: Config, folder: AnyPath | None = None, *, part: int = 1, of: int = 1) -> bool:
    """Tokenises a configuration's corpus, and says what it holds.

    A prepared corpus is the same, byte for byte, however many machines have made it. What a killed
    one has finished is not made again.

    Args:
        config: of the runs that are to read it; its `data` section alone counts.
        folder: where the prepared corpus goes, for `data.prepared`; None: to `data.cache_dir`.
        part: which part of the work is this process's, from 1.
        of: how many parts there are, one a machine; each is to see `folder`.

    Returns:
        Whether the corpus is whole now, or other parts are missing.

    Raises:
        UserError: the corpus is bad, or the folder holds something else.
    """
    if config.data.prepared:
        raise UserError(f"data.prepared={config.data.prepared} is prepared already: leave it out")
    with tempfile.TemporaryDirectory() as workdir:
        data = PreparedData(config, Path(workdir))
        data.check_corpus()
        splits = [split for split in SPLITS if data.corpus.has(split)]
        if folder is None:
            for split in splits:
                log.info("%s", _described(split, data.store(split)))
            return True
        begun = {
            "format": prepared.FORMAT,
            "data": prepared.deciding_keys(config.data),
            "fingerprints": {split: data.corpus.fingerprint(split) for split in splits},
        }
        _begin(folder, begun, data.tokenizer, Path(workdir) / prepared.TOKENIZER)
        parts = {split: _write(folder, split, data, part, of) for split in splits}
        if not all(_is_whole(folder, split, known) for split, known in parts.items()):
            log.info("part %d of %d is done: %s is whole when all are", part, of, folder)
            return False
        for split, known in parts.items():
            store = _checked(folder, split, known, config, data.tokenizer)
            known["bytes"] = store.nbytes
            log.info("%s", _described(split, store))
    index = {**begun, "vocab_size": data.tokenizer.size, "splits": parts}
    files.write_json(folder / prepared.INDEX, index)
    log.info("%s is whole", folder)
    return True


def _begin(folder: AnyPath, begun: dict[str, Any], tokenizer: Tokenizer, path: Path) -> None:
    """Makes a folder that of one corpus. Raises UserError where it holds something else."""
    there, known = folder / prepared.BEGUN, folder / prepared.TOKENIZER
    content = (files.as_json(begun, indent=2) + "\n").encode()
    if there.exists():
        same_tokenizer = not known.exists() or known.read_bytes() == path.read_bytes()
        if there.read_bytes() != content or not same_tokenizer:
            raise UserError(
                f"{folder} holds a corpus that was prepared with other keys, another text or "
                "another tokenizer: take another --to"
            )
    elif not run_directory.is_empty(folder, prepared.BEGUN):
        raise UserError(f"{folder} exists and holds no prepared corpus: take another --to")
    else:
        files.write(there, content)
    if not known.exists():
        log.info("a tokenizer of %d pieces: %s", tokenizer.size, known)
        files.write(known, path.read_bytes())


def _write(folder: AnyPath, split: str, data: PreparedData, part: int, of: int) -> dict[str, Any]:
    """Writes this process's shards of a split; what the index says of it."""
    corpus = data.corpus
    fingerprint = corpus.fingerprint(split)
    key = store_key(fingerprint, data.tokenizer.fingerprint)
    tokens = prepared.tokens_folder(folder, split, key)
    pairs = shards.write(tokens, corpus.pairs(split), data.tokenizer, lambda n: n % of == part - 1)
    text = b"" if split == "train" else prepared.text(corpus.pairs(split))
    if text and part == 1:
        files.write(folder / f"{split}.jsonl", text)
    return {
        "fingerprint": fingerprint,
        "text": prepared.digest(text),
        "origins": corpus.origins(split),
        "key": key,
        "pairs": pairs,
        "shards": shards.count(pairs),
    }


def _is_whole(folder: AnyPath, split: str, known: dict[str, Any]) -> bool:
    tokens = prepared.tokens_folder(folder, split, known["key"])
    path = folder / f"{split}.jsonl"
    has_text = path.exists() and prepared.digest(path.read_bytes()) == known["text"]
    return (split == "train" or has_text) and shards.are_whole(tokens, known["shards"])


def _checked(
    folder: AnyPath, split: str, known: dict[str, Any], config: Config, tokenizer: Tokenizer
) -> Store:
    """A split's store in `data.cache_dir`, made of all shards, which are read back."""
    tokens = prepared.tokens_folder(folder, split, known["key"])
    was_read = False

    def chunks() -> Iterator[Chunk]:
        nonlocal was_read
        yield from shards.read(tokens, known["shards"], tokenizer.size)
        was_read = True

    cache = runtime.cache_dir(config.data.cache_dir) / "tokens" / known["key"]
    store = open_chunks(cache, chunks, vocab_size=tokenizer.size, verb="checked")
    if not was_read:  # the cache had it
        deque(chunks(), maxlen=0)
    return store


def _described(split: str, store: Store) -> str:
    """One line about a split: what it holds, and what is wrong with it."""
    source, target = store.lengths.sum(axis=0, dtype=int).tolist()
    line = f"{split}: {len(store):,} pairs, {source:,} tokens of source, {target:,} of target"
    problems = selection.count(store.problems, ~Problem(0))
    return f"{line} ({selection.listed(problems)})" if problems else line
