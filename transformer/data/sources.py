"""Corpora: aligned sentence pairs from text files, from TFDS, or from our own grammar.

A new source is a class that answers `Corpus` and a row of `SOURCES`; its fields are the keys of its
section under `data` in experiments/base.py.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformer.data import tfds_builders
from transformer.data.lines import aligned, decode, file_digest
from transformer.errors import UserError

TFDS_CHUNK = 1024  # examples read at a time


@runtime_checkable
class Corpus(Protocol):
    """Sentence pairs in the splits "train", "dev" and "test"; some may be missing."""

    def has(self, split: str) -> bool: ...

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """(source, target) in corpus order, streaming. Raises UserError on what cannot be read."""
        ...

    def fingerprint(self, split: str) -> str:
        """Hexadecimal; changes whenever `pairs(split)` could."""
        ...


@dataclass(frozen=True)
class Text:
    """Two aligned files a split, plain or .gz, UTF-8, one sentence a line; "" = no such split.

    A line ends at \\n or \\r\\n and nowhere else: whatever else Unicode calls a line break belongs
    to the sentence. A bad line (not UTF-8, or empty) is refused by file and line, or skipped with
    its counterpart when `on_bad_line` is "skip". Files of different lengths are always refused.
    """

    train_source: str
    train_target: str
    dev_source: str
    dev_target: str
    test_source: str
    test_target: str
    on_bad_line: str

    def __post_init__(self) -> None:
        for split in ("train", "dev", "test"):
            source, target = self._paths(split)
            if bool(source) != bool(target):
                present, missing = ("source", "target") if source else ("target", "source")
                raise UserError(
                    f"data.text.{split}_{present} is {source or target} but "
                    f"data.text.{split}_{missing} is empty: name both files, or neither"
                )

    def _paths(self, split: str) -> tuple[str, str]:
        return getattr(self, f"{split}_source"), getattr(self, f"{split}_target")

    def has(self, split: str) -> bool:
        return bool(self._paths(split)[0])

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        _require_split(self, split, f"data.text.{split}_source and data.text.{split}_target")
        paths = self._paths(split)

        def where(side: int, number: int) -> str:
            return f"{paths[side]}:{number}"

        empty = True
        for pair in decode(aligned(*paths), where, self.on_bad_line):
            empty = False
            yield pair
        if empty:
            raise UserError(f"{paths[0]} and {paths[1]}: no sentence pairs in these files")

    def fingerprint(self, split: str) -> str:
        _require_split(self, split, f"data.text.{split}_source and data.text.{split}_target")
        return _digest("text", self.on_bad_line, *map(file_digest, self._paths(split)))


@dataclass(frozen=True)
class Tfds:
    """Any TFDS builder with a Translation feature, read from array_record without TensorFlow.

    Prepared on first use, which may download. A data set that somebody prepared elsewhere is read
    from `data_dir` even where its builder is not installed.
    """

    name: str  # "builder" or "builder/config"
    source_language: str
    target_language: str
    train: str  # TFDS's names of the splits, slices included; "" = no such split
    dev: str
    test: str
    data_dir: str  # "" = TFDS's own default
    on_bad_line: str

    def has(self, split: str) -> bool:
        return bool(getattr(self, split))

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        _require_split(self, split, f"data.tfds.{split}")
        tfds_builders.prepare(self._builder)
        part = getattr(self, split)

        def where(side: int, number: int) -> str:
            language = (self.source_language, self.target_language)[side]
            return f"{self._builder.info.full_name} {part}, example {number}, {language!r}"

        yield from decode(self._examples(part), where, self.on_bad_line)

    def fingerprint(self, split: str) -> str:
        _require_split(self, split, f"data.tfds.{split}")
        info = self._builder.info  # name, configuration and version: known before the data is there
        languages = (self.source_language, self.target_language)
        return _digest("tfds", info.full_name, getattr(self, split), *languages, self.on_bad_line)

    def _examples(self, part: str) -> Iterator[tuple[bytes, bytes]]:
        try:
            data = self._builder.as_data_source(split=part)
        except ValueError as error:  # an unknown split; TFDS names those there are
            raise UserError(
                f"data.tfds.name={self.name}: {tfds_builders.first_line(error)}"
            ) from error
        for start in range(0, len(data), TFDS_CHUNK):
            for example in data.__getitems__(range(start, min(start + TFDS_CHUNK, len(data)))):
                yield example[self.source_language], example[self.target_language]

    @cached_property
    def _builder(self) -> Any:
        builder = tfds_builders.find(self.name, self.data_dir)
        for key in ("source_language", "target_language"):
            if getattr(self, key) not in builder.info.features:
                raise UserError(
                    f"data.tfds.{key}={getattr(self, key)}: {self.name} has "
                    f"{', '.join(builder.info.features)}; choose one of these"
                )
        return builder


@dataclass(frozen=True)
class CasaRoja:
    """Our own Spanish-English grammar, which needs no files: see casa_roja.py."""

    train_size: int
    dev_size: int
    test_size: int
    on_bad_line: str = "refuse"  # every source takes it; a grammar writes no bad lines

    def has(self, split: str) -> bool:
        return getattr(self, f"{split}_size") > 0

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        from transformer.data import casa_roja

        size, limit = getattr(self, f"{split}_size"), casa_roja.count_pairs(split)
        if size > limit:
            raise UserError(f"data.casa_roja.{split}_size is {size:,}; the grammar gives {limit:,}")
        yield from casa_roja.pairs(split, size)

    def fingerprint(self, split: str) -> str:
        # The grammar's source text is its version: nobody has to remember to raise a number.
        files = sorted((Path(__file__).parent / "casa_roja").glob("*.py"))
        size = getattr(self, f"{split}_size")
        return _digest("casa_roja", split, size, *map(file_digest, files))


SOURCES: dict[str, type[Text] | type[Tfds] | type[CasaRoja]] = {
    "tfds": Tfds,
    "text": Text,
    "casa_roja": CasaRoja,
}


def _require_split(corpus: Corpus, split: str, keys: str) -> None:
    if not corpus.has(split):
        raise UserError(f"the corpus has no {split} split: set {keys}")


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
