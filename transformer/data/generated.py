"""Corpora that need no files: made up by us, or shipped by a dependency.

Their fields are the keys of their sections under `data` in experiments/base.py. What makes up the
pairs is their version: nobody has to remember to raise a number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.data import agreement, digits, recall, treebank
from transformer.data.lines import digest, file_digest
from transformer.data.pairs import Pair
from transformer.data.treebank import orchard, penn
from transformer.errors import UserError


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
class Orchard:
    """A treebank of ours, which needs no files: see treebank/orchard.py."""

    train_size: int
    dev_size: int
    test_size: int

    def has(self, split: str) -> bool:
        return getattr(self, f"{split}_size") > 0

    def pairs(self, split: str) -> Iterator[Pair]:
        size, limit = getattr(self, f"{split}_size"), orchard.count_trees(split)
        if size > limit:
            raise UserError(f"data.orchard.{split}_size is {size:,}; the grammar gives {limit:,}")
        yield from map(treebank.pair, orchard.trees(split, size))

    def fingerprint(self, split: str) -> str:
        # As of casa roja: the files that make the trees are their version.
        files = (orchard.__file__, orchard.lexicon.__file__)
        size = getattr(self, f"{split}_size")
        return digest("orchard", split, size, penn.VERSION, *map(file_digest, files))

    def origins(self, split: str) -> dict[str, str]:
        return {"orchard": f"{getattr(self, f'{split}_size'):,} trees of the grammar"}


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
    shifts: int  # of training pictures
    dev_size: int
    test_size: int

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
