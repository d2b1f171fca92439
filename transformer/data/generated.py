"""Corpora that need no files: made up by us, or shipped by a dependency.

Their fields are the keys of their sections (config/sources.py). The files that make up the pairs
are their version, in their fingerprints: nobody has to remember to raise a number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.config.sources import (
    AgreementConfig,
    CasaRojaConfig,
    DigitsConfig,
    OrchardConfig,
    RecallConfig,
)
from transformer.data import agreement, casa_roja, digits, recall, treebank
from transformer.data.lines import digest, file_digest
from transformer.data.pairs import Pair
from transformer.data.treebank import orchard, penn
from transformer.errors import UserError

# As they were when they were imported, which is what makes the pairs.
_CASA_ROJA = [*map(file_digest, sorted(Path(casa_roja.__file__).parent.glob("*.py")))]
_RECALL = file_digest(recall.__file__)
_ORCHARD = [file_digest(orchard.__file__), file_digest(orchard.lexicon.__file__)]
_AGREEMENT = file_digest(agreement.__file__)


class _Generated:
    """Pairs that a program of ours makes up: as many of each split as are asked for."""

    def size(self, split: str) -> int:
        return getattr(self, f"{split}_size")

    def has(self, split: str) -> bool:
        return self.size(split) > 0


@dataclass(frozen=True)
class CasaRoja(CasaRojaConfig, _Generated):
    """Our own Spanish-English grammar: see casa_roja/."""

    def pairs(self, split: str) -> Iterator[Pair]:
        size, limit = self.size(split), casa_roja.count_pairs(split)
        if size > limit:
            raise UserError(f"data.casa_roja.{split}_size is {size:,}; the grammar gives {limit:,}")
        for source, target in casa_roja.pairs(split, size):
            yield Pair(source, target)

    def fingerprint(self, split: str) -> str:
        return digest("casa_roja", split, self.size(split), *_CASA_ROJA)

    def origins(self, split: str) -> dict[str, str]:
        return {"casa_roja": f"{self.size(split):,} pairs of the grammar"}


@dataclass(frozen=True)
class Recall(RecallConfig, _Generated):
    """Made-up symbols to remember over a distance: see recall.py."""

    def pairs(self, split: str) -> Iterator[Pair]:
        size = self.size(split)
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
        return digest("recall", split, self.size(split), self.task, self._kind(split), _RECALL)

    def origins(self, split: str) -> dict[str, str]:
        blanks = ", ".join(map(str, self.distances))
        return {"recall": f"{self.size(split):,} pairs of {self.task} over {blanks} blanks"}

    def _kind(self, split: str) -> dict[str, Any]:
        turns = self.distances
        if split == "train" and self.distance_weights:
            weighted = zip(self.distances, self.distance_weights, strict=True)
            turns = tuple(d for d, weight in weighted for _ in range(weight))
        return {"item_count": self.item_count, "symbols": self.symbols, "distances": turns}


@dataclass(frozen=True)
class Orchard(OrchardConfig, _Generated):
    """A treebank of ours: see treebank/orchard.py."""

    def pairs(self, split: str) -> Iterator[Pair]:
        size, limit = self.size(split), orchard.count_trees(split)
        if size > limit:
            raise UserError(f"data.orchard.{split}_size is {size:,}; the grammar gives {limit:,}")
        yield from map(treebank.pair, orchard.trees(split, size))

    def fingerprint(self, split: str) -> str:
        return digest("orchard", split, self.size(split), penn.VERSION, *_ORCHARD)

    def origins(self, split: str) -> dict[str, str]:
        return {"orchard": f"{self.size(split):,} trees of the grammar"}


@dataclass(frozen=True)
class Agreement(AgreementConfig, _Generated):
    """Casa roja's Spanish, right or with a word that does not agree: see agreement.py."""

    def pairs(self, split: str) -> Iterator[Pair]:
        size = self.size(split)
        try:
            labelled = agreement.pairs(split, size)
        except ValueError as error:
            raise UserError(f"data.agreement.{split}_size is {size:,}: {error}") from error
        for text, label in labelled:
            yield Pair(text, label)

    def fingerprint(self, split: str) -> str:
        grammar = CasaRoja(self.train_size, self.dev_size, self.test_size).fingerprint(split)
        return digest("agreement", grammar, _AGREEMENT)

    def origins(self, split: str) -> dict[str, str]:
        return {"agreement": f"{self.size(split):,} sentences, right or wrong"}


@dataclass(frozen=True)
class Digits(DigitsConfig):
    """Scikit-learn's handwritten digits as text: see digits.py."""

    def has(self, split: str) -> bool:
        return True

    def pairs(self, split: str) -> Iterator[Pair]:
        """The first are for development, the next for testing, the others for training."""
        dev, held, count = self.dev_size, self.dev_size + self.test_size, digits.count()
        if held >= count:
            raise UserError(
                f"data.digits.dev_size and test_size are {held:,} of {count:,} pictures: leave "
                "some to train on"
            )
        splits = {"dev": slice(dev), "test": slice(dev, held), "train": slice(held, None)}
        shifts = self.shifts if split == "train" else 0
        for text, name in digits.pairs(splits[split], patch_side=self.patch_side, shifts=shifts):
            yield Pair(text, name)

    def fingerprint(self, split: str) -> str:
        return digest("digits", [pair[:2] for pair in self.pairs(split)])

    def origins(self, split: str) -> dict[str, str]:
        return {"digits": "scikit-learn's load_digits"}
