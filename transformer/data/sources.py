"""Corpora: aligned sentence pairs from text files, from TFDS, made up by us, or several.

A new source is a class that answers `Corpus` and a row of `SOURCES`; its fields are the keys of its
section under `data` in experiments/base.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformer.data import agreement, digits, recall, tfds_builders
from transformer.data.lines import aligned, decode, digest, file_digest
from transformer.data.pairs import Pair
from transformer.data.passages import Files
from transformer.errors import UserError

TFDS_CHUNK = 1024  # examples read at a time


@runtime_checkable
class Corpus(Protocol):
    """Sentence pairs in the splits "train", "dev" and "test"; some may be missing."""

    def has(self, split: str) -> bool: ...

    def pairs(self, split: str) -> Iterator[Pair]:
        """Every pair in corpus order, streaming, whatever is wrong with it.

        Raises:
            UserError: there is no such split, or it cannot be read as a whole.
        """
        ...

    def fingerprint(self, split: str) -> str:
        """Hexadecimal; changes whenever `pairs(split)` could."""
        ...

    def origins(self, split: str) -> dict[str, str]:
        """Where `pairs(split)` comes from, for people: by name, in the order of `Pair.part`."""
        ...


@dataclass(frozen=True)
class Text:
    """Two aligned files a split, plain or .gz, UTF-8, one sentence a line; "" = no such split.

    A line ends at \\n or \\r\\n and nowhere else: whatever else Unicode calls a line break belongs
    to the sentence. Files of different lengths are refused.
    """

    train_source: str
    train_target: str
    dev_source: str
    dev_target: str
    test_source: str
    test_target: str

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

    def pairs(self, split: str) -> Iterator[Pair]:
        _require_split(self, split, f"data.text.{split}_source and data.text.{split}_target")
        paths = self._paths(split)
        empty = True
        for pair in decode(aligned(*paths)):
            empty = False
            yield pair
        if empty:
            raise UserError(f"{paths[0]} and {paths[1]}: no sentence pairs in these files")

    def fingerprint(self, split: str) -> str:
        _require_split(self, split, f"data.text.{split}_source and data.text.{split}_target")
        return digest("text", *map(file_digest, self._paths(split)))

    def origins(self, split: str) -> dict[str, str]:
        return {"text": " and ".join(self._paths(split))}


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

    def has(self, split: str) -> bool:
        return bool(getattr(self, split))

    def pairs(self, split: str) -> Iterator[Pair]:
        _require_split(self, split, f"data.tfds.{split}")
        tfds_builders.prepare(self._builder)
        yield from decode(self._examples(getattr(self, split)))

    def fingerprint(self, split: str) -> str:
        _require_split(self, split, f"data.tfds.{split}")
        info = self._builder.info  # name, configuration and version: known before the data is there
        languages = (self.source_language, self.target_language)
        return digest("tfds", info.full_name, getattr(self, split), *languages)

    def origins(self, split: str) -> dict[str, str]:
        return {"tfds": f"{self._builder.info.full_name} {getattr(self, split)}"}

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

    def has(self, split: str) -> bool:
        return getattr(self, f"{split}_size") > 0

    def pairs(self, split: str) -> Iterator[Pair]:
        from transformer.data import casa_roja

        size, limit = getattr(self, f"{split}_size"), casa_roja.count_pairs(split)
        if size > limit:
            raise UserError(f"data.casa_roja.{split}_size is {size:,}; the grammar gives {limit:,}")
        for source, target in casa_roja.pairs(split, size):
            yield Pair(source, target)

    def fingerprint(self, split: str) -> str:
        # The grammar's source text is its version: nobody has to remember to raise a number.
        files = sorted((Path(__file__).parent / "casa_roja").glob("*.py"))
        size = getattr(self, f"{split}_size")
        return digest("casa_roja", split, size, *map(file_digest, files))

    def origins(self, split: str) -> dict[str, str]:
        return {"casa_roja": f"{getattr(self, f'{split}_size'):,} pairs of the grammar"}


@dataclass(frozen=True)
class Recall:
    """Made-up symbols to remember over a distance, which need no files: see recall.py."""

    task: str
    item_count: int
    symbols: int
    distances: tuple[int, ...]
    distance_weights: tuple[int, ...]  # of the training set; () = alike
    train_size: int
    dev_size: int
    test_size: int

    def has(self, split: str) -> bool:
        return getattr(self, f"{split}_size") > 0

    def pairs(self, split: str) -> Iterator[Pair]:
        size = getattr(self, f"{split}_size")
        limit = recall.count_pairs(self.task, self.item_count, self.symbols)
        if size > limit:
            raise UserError(
                f"data.recall.{split}_size is {size:,}; {self.item_count} items of {self.symbols} "
                f"symbols give {limit:,} pairs a split: take fewer, or more symbols"
            )
        kind = self._kind(split)
        for index in range(size):
            yield Pair(*recall.pair(self.task, split, index, **kind))

    def fingerprint(self, split: str) -> str:
        # As of casa roja: the file that makes the pairs is their version.
        size, version = getattr(self, f"{split}_size"), file_digest(recall.__file__)
        return digest("recall", split, size, self.task, self._kind(split), version)

    def origins(self, split: str) -> dict[str, str]:
        size, blanks = getattr(self, f"{split}_size"), ", ".join(map(str, self.distances))
        return {"recall": f"{size:,} pairs of {self.task} over {blanks} blanks"}

    def _kind(self, split: str) -> dict[str, Any]:
        turns = self.distances
        if split == "train" and self.distance_weights:
            weighted = zip(self.distances, self.distance_weights, strict=True)
            turns = tuple(d for d, weight in weighted for _ in range(weight))
        return {"item_count": self.item_count, "symbols": self.symbols, "distances": turns}


@dataclass(frozen=True)
class Agreement:
    """Casa roja's Spanish, right or with a word that does not agree: see agreement.py."""

    train_size: int
    dev_size: int
    test_size: int

    def has(self, split: str) -> bool:
        return getattr(self, f"{split}_size") > 0

    def pairs(self, split: str) -> Iterator[Pair]:
        size = getattr(self, f"{split}_size")
        try:
            labelled = agreement.pairs(split, size)
        except ValueError as error:
            raise UserError(f"data.agreement.{split}_size is {size:,}: {error}") from error
        for text, label in labelled:
            yield Pair(text, label)

    def fingerprint(self, split: str) -> str:
        size = getattr(self, f"{split}_size")
        grammar = CasaRoja(size, size, size).fingerprint(split)
        return digest("agreement", grammar, file_digest(agreement.__file__))

    def origins(self, split: str) -> dict[str, str]:
        return {"agreement": f"{getattr(self, f'{split}_size'):,} sentences, right or wrong"}


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's handwritten digits as text: see digits.py."""

    patch_side: int
    dev_size: int
    test_size: int

    def has(self, split: str) -> bool:
        return True

    def pairs(self, split: str) -> Iterator[Pair]:
        """The first are for development, the next for testing, the others for training."""
        dev, held = self.dev_size, self.dev_size + self.test_size
        every = digits.pairs(self.patch_side)
        if held >= len(every):
            raise UserError(
                f"data.digits.dev_size and test_size are {held:,} of {len(every):,} pictures: "
                "leave some to train on"
            )
        splits = {"dev": every[:dev], "test": every[dev:held], "train": every[held:]}
        for text, name in splits[split]:
            yield Pair(text, name)

    def fingerprint(self, split: str) -> str:
        return digest("digits", [pair[:2] for pair in self.pairs(split)])

    def origins(self, split: str) -> dict[str, str]:
        return {"digits": "scikit-learn's load_digits"}


@dataclass(frozen=True)
class Mixture:
    """The training pairs of several corpora one after another; how often each comes is a plan's.

    The other splits are those of the first part that has them.
    """

    parts: Mapping[str, Corpus]

    def has(self, split: str) -> bool:
        return any(part.has(split) for part in self.parts.values())

    def pairs(self, split: str) -> Iterator[Pair]:
        for index, part in enumerate(self._of(split).values()):
            for pair in part.pairs(split):
                yield pair._replace(part=index)

    def fingerprint(self, split: str) -> str:
        return digest("mixture", *(part.fingerprint(split) for part in self._of(split).values()))

    def origins(self, split: str) -> dict[str, str]:
        return {
            name: "; ".join(part.origins(split).values()) for name, part in self._of(split).items()
        }

    def _of(self, split: str) -> dict[str, Corpus]:
        """The parts that make up a split."""
        having = {name: part for name, part in self.parts.items() if part.has(split)}
        if not having:
            raise UserError(f"no part of data.mixture has a {split} split: give one of them one")
        return having if split == "train" else dict([next(iter(having.items()))])


@dataclass(frozen=True)
class OneSide:
    """One side of a corpus, which is its own target: for what is masked, and for copying."""

    corpus: Corpus
    side: str  # "source" or "target"

    def has(self, split: str) -> bool:
        return self.corpus.has(split)

    def pairs(self, split: str) -> Iterator[Pair]:
        for pair in self.corpus.pairs(split):
            text = getattr(pair, self.side)
            yield pair._replace(source=text, target=text)

    def fingerprint(self, split: str) -> str:
        return digest("one side", self.side, self.corpus.fingerprint(split))

    def origins(self, split: str) -> dict[str, str]:
        return self.corpus.origins(split)


SOURCES: dict[str, type[Text | Tfds | CasaRoja | Recall | Files | Agreement | Digits]] = {
    "tfds": Tfds,
    "text": Text,
    "casa_roja": CasaRoja,
    "recall": Recall,
    "files": Files,
    "agreement": Agreement,
    "digits": Digits,
}


def _require_split(corpus: Corpus, split: str, keys: str) -> None:
    if not corpus.has(split):
        raise UserError(f"the corpus has no {split} split: set {keys}")
