"""Corpora: aligned sentence pairs from text files, from TFDS, made up by us, or several.

A new source of ours is a section of keys (config/sources.py), a class of it that answers `Corpus`,
and a row of `SOURCES`. One of yours is a class that answers `Corpus`, named in `data.source`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from transformer.config import DataConfig, PartConfig
from transformer.config.sources import TfdsConfig, TreebankConfig
from transformer.data import tfds_builders, treebank
from transformer.data.generated import Agreement, CasaRoja, Digits, Orchard, Recall
from transformer.data.lines import Digests, decode, digest
from transformer.data.pairs import Pair
from transformer.data.passages import Files
from transformer.data.text import Text
from transformer.data.treebank import penn
from transformer.dotted import construct, is_dotted, resolve
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
        """Hexadecimal; changes whenever `pairs(split)` could.

        A later `pairs(split)` of another text than this is of raises UserError at its end.
        """
        ...

    def origins(self, split: str) -> dict[str, str]:
        """Where `pairs(split)` comes from, for people: by name, in the order of `Pair.part`."""
        ...


@dataclass(frozen=True)
class Tfds(TfdsConfig):
    """Any TFDS builder with a Translation feature, read from array_record without TensorFlow.

    Prepared on first use, which may download. A data set that somebody prepared elsewhere is read
    from `data_dir` even where its builder is not installed.
    """

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
class Treebank(TreebankConfig):
    """Sentences and their trees, from bracketed files, plain or gzip; see treebank/penn.py.

    Each is a glob or a path, or several separated by commas; "" = no such split.
    """

    _digests: Digests = field(default_factory=Digests, init=False, repr=False, compare=False)
    _names: dict[str, list[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def has(self, split: str) -> bool:
        return bool(getattr(self, split))

    def pairs(self, split: str) -> Iterator[Pair]:
        empty, files = True, self._files(split)
        for path in files:
            for tree in treebank.read(path, f"data.treebank.{split}", self._digests):
                empty = False
                yield treebank.pair(tree)
        if empty:
            raise UserError(f"{files[0]} (of {len(files)} files): no trees in them")

    def fingerprint(self, split: str) -> str:
        key = f"data.treebank.{split}"
        digests = (self._digests.take(path, key) for path in self._files(split))
        return digest("treebank", penn.VERSION, *digests)

    def origins(self, split: str) -> dict[str, str]:
        return {"treebank": getattr(self, split)}

    def _files(self, split: str) -> list[str]:
        """A split's files as they were first: what comes later was not fingerprinted."""
        _require_split(self, split, f"data.treebank.{split}")
        if split not in self._names:
            key = f"data.treebank.{split}"
            self._names[split] = treebank.files(getattr(self, split), key)
        return self._names[split]


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


Source = Text | Tfds | CasaRoja | Recall | Treebank | Orchard | Files | Agreement | Digits
SOURCES: dict[str, type[Source]] = {
    "tfds": Tfds,
    "text": Text,
    "casa_roja": CasaRoja,
    "recall": Recall,
    "treebank": Treebank,
    "orchard": Orchard,
    "files": Files,
    "agreement": Agreement,
    "digits": Digits,
}


@dataclass(frozen=True)
class Checked:
    """A corpus of one's own, of which each pair is looked at: it is another's code."""

    name: str
    options: dict[str, Any]
    corpus: Corpus

    def has(self, split: str) -> bool:
        return bool(self.corpus.has(split))

    def pairs(self, split: str) -> Iterator[Pair]:
        pairs = self.corpus.pairs(split)
        if not isinstance(pairs, Iterable):
            raise UserError(f"data.source is {self.name!r}, whose pairs({split!r}) gives no pairs")
        for number, pair in enumerate(pairs):
            if not isinstance(pair, Pair) or not all(isinstance(text, str) for text in pair[:2]):
                what = "no data.Pair of two texts"
            elif pair.part != 0:
                what = "of a part, which only a mixture has"
            elif not all(map(_has_bytes, pair[:2])):
                what = "text that UTF-8 has no bytes for (half a surrogate pair)"
            else:
                yield pair
                continue
            raise UserError(
                f"data.source is {self.name!r}, whose pair {number} of the {split} set is {what}: "
                f"{ascii(pair)[:80]}"
            )

    def fingerprint(self, split: str) -> str:
        if not self.has(split):
            raise UserError(
                f"data.source is {self.name!r}, which has no {split} split: give it one, or take "
                "another split"
            )
        fingerprint = self.corpus.fingerprint(split)
        if not (isinstance(fingerprint, str) and fingerprint):
            raise UserError(
                f"data.source is {self.name!r}, whose fingerprint({split!r}) is {fingerprint!r}: "
                "give text, another one for another text"
            )
        return digest("own", self.name, self.options, split, fingerprint)

    def origins(self, split: str) -> dict[str, str]:
        origins = self.corpus.origins(split)
        if not (isinstance(origins, Mapping) and len(origins) == 1):
            return {self.name: split}
        return {str(name): str(where) for name, where in origins.items()}


def _has_bytes(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def open_corpus(config: DataConfig) -> Corpus:
    """The corpus that a configuration names; reads none of it yet.

    Raises:
        UserError: there is no such source, or its keys cannot work.
    """
    if config.source == "mixture":
        corpus = Mixture({name: _open(part) for name, part in config.mixture.items()})
    else:
        corpus = _open(config)
    return corpus if config.side == "both" else OneSide(corpus, config.side)


def _open(config: DataConfig | PartConfig) -> Corpus:
    name = config.source
    if not is_dotted(name):
        return SOURCES[name](**dataclasses.asdict(getattr(config, name)))
    factory = resolve(name, "data.source")
    corpus = construct(factory, config.source_options, "data.source_options", name)
    if not isinstance(corpus, Corpus):
        raise UserError(f"data.source is {name!r}, which lacks has, pairs, fingerprint or origins")
    return Checked(name, dict(config.source_options), corpus)


def _require_split(corpus: Corpus, split: str, keys: str) -> None:
    if not corpus.has(split):
        raise UserError(f"the corpus has no {split} split: set {keys}")
