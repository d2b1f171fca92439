"""Which text: a section for each source of `data.source`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer.config.fields import (
    Section,
    checked,
    choice,
    positive,
    require,
)
from transformer.dotted import is_dotted

MADE_UP = ("casa_roja", "recall", "orchard", "agreement", "digits")
SOURCES = ("tfds", "text", "treebank", "files", *MADE_UP)  # each with a section of its own
OF_TREES = ("treebank", "orchard")  # those of pairs of a sentence and its tree


@dataclass(frozen=True)
class TfdsConfig(Section, section="data.tfds"):
    """Any TFDS builder with a Translation feature."""

    name: str = "wmt14_translate/de-en"
    """The builder, "builder" or "builder/config"."""
    source_language: str = "en"
    target_language: str = "de"
    train: str = "train"
    """TFDS's name of the training split, slices included; "": none."""
    dev: str = "validation"
    """TFDS's name of the development split; "": none."""
    test: str = "test"
    """TFDS's name of the test split; "": none."""
    data_dir: str = ""
    """Folder of prepared data sets; "": TFDS's own default."""


def _field(key: str, value: str) -> None:
    require(
        bool(value.strip()) and not (value.isdecimal() and (len(value) > 6 or int(value) == 0)),
        f"{key} is {value!r}; give the number of a column, from 1, or a name",
    )


@dataclass(frozen=True)
class TextConfig(Section, section="data.text"):
    """Files, plain or gzip, UTF-8: two aligned ones a split, one sentence a line; "": none."""

    train_source: str = ""
    train_target: str = ""
    dev_source: str = ""
    dev_target: str = ""
    test_source: str = ""
    test_target: str = ""
    train: str = ""
    """One file of both sides, in place of the two."""
    dev: str = ""
    test: str = ""
    format: str = choice("tsv", "jsonl")
    """The format of files of both sides. tsv: columns with tabs between them. jsonl: JSON lines."""
    source_field: str = checked("1", _field)
    """The source in such a file: the number of a column, from 1, or its name, which the first line
    then has; in JSON lines a key, "translation.en" for one inside another."""
    target_field: str = checked("2", _field)
    """The target in such a file, in the same way."""


@dataclass(frozen=True)
class CasaRojaConfig(Section, section="data.casa_roja"):
    """Our own Spanish-English grammar."""

    train_size: int = positive(300_000)
    """Sentence pairs for training."""
    dev_size: int = positive(500)
    test_size: int = positive(2_000)


def _symbols(key: str, value: int) -> None:
    require(2 <= value <= 26, f"{key} is {value}; each is a letter, so take 2 to 26")


def _distances(key: str, value: tuple[int, ...]) -> None:
    require(
        min(value, default=-1) >= 0 and len(set(value)) == len(value),
        f"{key} is {value}; it needs one or more, each once, and none below 0",
    )


@dataclass(frozen=True)
class RecallConfig(Section, section="data.recall"):
    """Made-up symbols to remember over a distance: see transformer/data/recall.py."""

    task: str = choice("copy", "reverse", "associative")
    item_count: int = positive(10)
    """Symbols to remember, or pairs of a key and a value."""
    symbols: int = checked(8, _symbols)
    """Different letters."""
    distances: tuple[int, ...] = checked((10, 30, 100, 300, 1000), _distances)
    """Blanks to remember over."""
    distance_weights: tuple[int, ...] = ()
    """How often each distance comes in the training set: (3, 1) is three pairs of the first for one
    of the second. (): equally often, as in the other splits."""
    train_size: int = positive(20_000)
    """Pairs for training."""
    dev_size: int = positive(200)
    test_size: int = positive(1_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.task != "associative" or self.item_count <= self.symbols,
            f"data.recall.item_count is {self.item_count} but there are {self.symbols} symbols, "
            "and no two keys of a sentence are the same: take as many symbols at least",
        )
        require(
            not self.distance_weights
            or (
                len(self.distance_weights) == len(self.distances) and min(self.distance_weights) > 0
            ),
            f"data.recall.distance_weights is {self.distance_weights}; it needs a number above 0 "
            f"for each of the distances {self.distances}, or none at all",
        )


@dataclass(frozen=True)
class TreebankConfig(Section, section="data.treebank"):
    """Constituency trees (AIAYN §6.3): bracketed files, plain or gzip, UTF-8.

    Paths and globs, with commas between them: "wsj/0[2-9]/*.mrg,wsj/1?/*.mrg"; "": no such split.
    """

    train: str = ""
    dev: str = ""
    test: str = ""


@dataclass(frozen=True)
class OrchardConfig(Section, section="data.orchard"):
    """Our own treebank: see transformer/data/treebank/orchard.py."""

    train_size: int = positive(20_000)
    """Trees for training."""
    dev_size: int = positive(200)
    test_size: int = positive(1_000)


def _share(key: str, value: float) -> None:
    require(0.0 <= value <= 1.0, f"{key} is {value}; it is a share, from 0 to 1")


@dataclass(frozen=True)
class FilesConfig(Section, section="data.files"):
    """Any text files, for language models: transformer/data/passages.py."""

    patterns: tuple[str, ...] = ()
    """Globs, each of some file, plain or gzip; (): our own source code."""
    lines: int = positive(8)
    """Consecutive lines of a passage."""
    prompt_lines: int = 2
    """The first lines of a passage, its source; what follows is its target."""
    unprompted: float = checked(0.5, _share)
    """Share of training passages whose prompt is empty: all is target."""
    dev_size: int = positive(200)
    """Passages at most, evenly from those of a tenth of the files."""
    test_size: int = positive(1_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.prompt_lines < self.lines,
            f"data.files.prompt_lines is {self.prompt_lines} of data.files.lines = {self.lines}: "
            "take at least 0 and leave a line to go on with",
        )


@dataclass(frozen=True)
class AgreementConfig(Section, section="data.agreement"):
    """Sentences of casa roja's grammar, "right" or "wrong": transformer/data/agreement.py."""

    train_size: int = positive(50_000)
    """Sentences for training."""
    dev_size: int = positive(500)
    test_size: int = positive(2_000)


def _patch_side(key: str, value: int) -> None:
    require(value in (1, 2, 4, 8), f"{key} is {value}; take 1, 2, 4 or 8 of 8 pixels")


def _shifts(key: str, value: int) -> None:
    require(0 <= value < 8, f"{key} is {value}; take 0 to 7 of 8 pixels")


@dataclass(frozen=True)
class DigitsConfig(Section, section="data.digits"):
    """Scikit-learn's 1,797 handwritten digits, a letter a pixel: transformer/data/digits.py."""

    patch_side: int = checked(2, _patch_side)
    """Pixels; those of a patch stand together: model.patch is its square."""
    shifts: int = checked(0, _shifts)
    """Training pictures also come moved by up to so many pixels, each way: 1 is 9 times as many."""
    dev_size: int = positive(200)
    """Pictures; what is left of them is for training."""
    test_size: int = positive(400)


def check_source(key: str, name: str, options: Mapping[str, Any], *more: str) -> None:
    """Raises UserError where a source has no such name, or takes no options."""
    names = (*SOURCES, *more)
    require(
        name in names or is_dotted(name),
        f"{key} is {name!r}; choose one of {', '.join(names)}, or give a class of your own, "
        '"module:Class"',
    )
    require(
        not options or is_dotted(name),
        f"{key}_options is set but {key} is {name!r}, whose keys are data.{name}'s: leave it out",
    )


@dataclass(frozen=True)
class PartConfig(Section, section="data.mixture.NAME"):
    """One part of a mixture: its source, that source's section and no other's, and its rate."""

    source: str
    rate: float
    """How often its pairs come in an epoch; 2.5: twice, and half of them a third time."""
    source_options: Mapping[str, Any] = field(default_factory=dict)
    tfds: TfdsConfig | None = None
    text: TextConfig | None = None
    casa_roja: CasaRojaConfig | None = None
    recall: RecallConfig | None = None
    treebank: TreebankConfig | None = None
    orchard: OrchardConfig | None = None
    files: FilesConfig | None = None
    agreement: AgreementConfig | None = None
    digits: DigitsConfig | None = None

    def check(self, name: str) -> None:
        """Raises UserError where the part of this name cannot be."""
        key = f"data.mixture.{name}"
        check_source(f"{key}.source", self.source, self.source_options)
        require(
            0.0 < self.rate < math.inf,
            f"{key}.rate is {self.rate}; it is how often an epoch has each pair, above 0",
        )
        sections = [source for source in SOURCES if getattr(self, source) is not None]
        require(
            sections == ([self.source] if self.source in SOURCES else []),
            f"{key} has the sections {', '.join(sections) or '(none)'}; it needs the one that its "
            f"source, {self.source}, names, and no other",
        )
