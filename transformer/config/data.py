"""Which text, and how it becomes batches."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from transformer.config.checks import at_most, fraction, not_negative, one_of, positive, require

MADE_UP = ("casa_roja", "recall", "orchard", "agreement", "digits")
SOURCES = ("tfds", "text", "treebank", "files", *MADE_UP)  # each with a section of its own
OF_TREES = ("treebank", "orchard")  # those of pairs of a sentence and its tree


@dataclass(frozen=True)
class TfdsConfig:
    name: str
    source_language: str
    target_language: str
    train: str
    dev: str
    test: str
    data_dir: str


@dataclass(frozen=True)
class TextConfig:
    train_source: str
    train_target: str
    dev_source: str
    dev_target: str
    test_source: str
    test_target: str


@dataclass(frozen=True)
class CasaRojaConfig:
    train_size: int
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        positive("data.casa_roja", self, "train_size", "dev_size", "test_size")


@dataclass(frozen=True)
class RecallConfig:
    task: str
    item_count: int
    symbols: int
    distances: tuple[int, ...]
    distance_weights: tuple[int, ...]
    train_size: int
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        one_of("data.recall.task", self.task, ("copy", "reverse", "associative"))
        positive("data.recall", self, "item_count", "train_size", "dev_size", "test_size")
        require(
            2 <= self.symbols <= 26,
            f"data.recall.symbols is {self.symbols}; each is a letter, so take 2 to 26",
        )
        require(
            self.task != "associative" or self.item_count <= self.symbols,
            f"data.recall.item_count is {self.item_count} but there are {self.symbols} symbols, "
            "and no two keys of a sentence are the same: take as many symbols at least",
        )
        require(
            min(self.distances, default=-1) >= 0
            and len(set(self.distances)) == len(self.distances),
            f"data.recall.distances is {self.distances}; it needs one or more, each once, and none "
            "below 0",
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
class TreebankConfig:
    train: str
    dev: str
    test: str


@dataclass(frozen=True)
class OrchardConfig:
    train_size: int
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        positive("data.orchard", self, "train_size", "dev_size", "test_size")


@dataclass(frozen=True)
class FilesConfig:
    patterns: tuple[str, ...]
    lines: int
    prompt_lines: int
    unprompted: float
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        positive("data.files", self, "lines", "dev_size", "test_size")
        require(
            0 <= self.prompt_lines < self.lines,
            f"data.files.prompt_lines is {self.prompt_lines} of data.files.lines = {self.lines}: "
            "take at least 0 and leave a line to go on with",
        )
        require(
            0.0 <= self.unprompted <= 1.0,
            f"data.files.unprompted is {self.unprompted}; it is a share, from 0 to 1",
        )


@dataclass(frozen=True)
class AgreementConfig:
    train_size: int
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        positive("data.agreement", self, "train_size", "dev_size", "test_size")


@dataclass(frozen=True)
class DigitsConfig:
    patch_side: int
    shifts: int
    dev_size: int
    test_size: int

    def __post_init__(self) -> None:
        positive("data.digits", self, "dev_size", "test_size")
        require(
            0 <= self.shifts < 8,
            f"data.digits.shifts is {self.shifts}; take 0 to 7 of 8 pixels",
        )
        require(
            self.patch_side in (1, 2, 4, 8),
            f"data.digits.patch_side is {self.patch_side}; take 1, 2, 4 or 8 of 8 pixels",
        )


@dataclass(frozen=True)
class PartConfig:
    """Of a mixture: a source, its section and no other's, and how often its pairs come."""

    source: str
    rate: float
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
        key = f"data.mixture.{name}"
        one_of(f"{key}.source", self.source, SOURCES)
        require(
            0.0 < self.rate < math.inf,
            f"{key}.rate is {self.rate}; it is how often an epoch has each pair, above 0",
        )
        given = [source for source in SOURCES if getattr(self, source) is not None]
        require(
            given == [self.source],
            f"{key} has the sections {', '.join(given) or '(none)'}; it needs {self.source}, which "
            "its source names, and no other",
        )


@dataclass(frozen=True)
class LeaveOutConfig:
    not_utf8: bool
    control_characters: bool
    empty: bool
    duplicates: bool
    held_out: bool


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str
    vocab_size: int
    character_coverage: float
    lowercase: bool
    train_sentences: int
    split_scripts: bool
    sampling: float

    def __post_init__(self) -> None:
        one_of("data.tokenizer.kind", self.kind, ("bpe", "unigram"))
        positive("data.tokenizer", self, "train_sentences")
        fraction("data.tokenizer.sampling", self.sampling)
        require(
            self.vocab_size > 260,
            f"data.tokenizer.vocab_size is {self.vocab_size}; 4 special pieces and 256 bytes "
            "come first, so take more than 260",
        )
        at_most("data.tokenizer", self, 2**31 - 1, "vocab_size")
        require(
            0.9 <= self.character_coverage <= 1.0,
            f"data.tokenizer.character_coverage is {self.character_coverage}; "
            "it must be from 0.9 to 1",
        )


@dataclass(frozen=True)
class DataConfig:
    source: str
    tfds: TfdsConfig
    text: TextConfig
    casa_roja: CasaRojaConfig
    recall: RecallConfig
    treebank: TreebankConfig
    orchard: OrchardConfig
    files: FilesConfig
    agreement: AgreementConfig
    digits: DigitsConfig
    mixture: Mapping[str, PartConfig]  # in the order of their names
    side: str
    masked: float
    leave_out: LeaveOutConfig
    max_ratio: float
    tokenizer: TokenizerConfig
    batching: str
    tokens_per_batch: int
    max_length: int
    shapes: int
    packed_length: int
    row_multiple: int
    length_multiple: int
    prefetch: int
    cache_dir: str

    def __post_init__(self) -> None:
        one_of("data.source", self.source, (*SOURCES, "mixture"))
        for name, part in self.mixture.items():
            part.check(name)
        require(
            self.source != "mixture" or bool(self.mixture),
            "data.source is 'mixture' but data.mixture is empty: see experiments/base.py",
        )
        require(
            len(self.mixture) < 2**16, f"data.mixture has {len(self.mixture):,} parts: too many"
        )
        one_of("data.side", self.side, ("both", "source", "target"))
        fraction("data.masked", self.masked)
        require(
            self.masked == 0.0 or self.side != "both",
            f"data.masked is {self.masked}; what is masked is to be restored, so source and target "
            "are one text: set data.side to source or target",
        )
        require(
            self.masked == 0.0 or self.tokenizer.sampling == 0.0,
            "data.masked and data.tokenizer.sampling are both set: sampling would cut the target "
            "otherwise than the source",
        )
        require(
            self.max_ratio == 0.0 or self.max_ratio >= 1.0,
            f"data.max_ratio is {self.max_ratio}; take 1 or more, or 0 for any",
        )
        one_of("data.batching", self.batching, ("buckets", "packed"))
        positive("data", self, "tokens_per_batch", "max_length", "shapes", "packed_length")
        positive("data", self, "row_multiple", "length_multiple")
        not_negative("data", self, "prefetch")
        for section in ("text", "treebank"):
            paths = vars(getattr(self, section))
            named = [f"data.{section}.{key}" for key, path in paths.items() if path]
            require(
                self.source == section or not named,
                f"{' and '.join(named[:2])} {'are' if named[1:] else 'is'} set but data.source is "
                f"{self.source!r}, which does not read files named there: add "
                f"--config.data.source={section}",
            )
        require(
            not (self._treebanks and self.tokenizer.lowercase),
            "data.tokenizer.lowercase is True, but the labels of trees have capitals: set it False",
        )
        length = self.max_length if self.batching == "buckets" else self.packed_length
        key = "max_length" if self.batching == "buckets" else "packed_length"
        require(
            length % self.length_multiple == 0,
            f"data.{key} is {length}, no multiple of data.length_multiple = "
            f"{self.length_multiple}: take {length + -length % self.length_multiple}",
        )
        require(
            length * self.row_multiple <= self.tokens_per_batch,
            f"data.tokens_per_batch is {self.tokens_per_batch}, too few for data.row_multiple = "
            f"{self.row_multiple} rows of data.{key} = {length}: take at least "
            f"{length * self.row_multiple}",
        )

    @property
    def of_trees(self) -> bool:
        """Whether sources are sentences and targets their trees, linearised."""
        return self._treebanks and self.side == "both"

    @property
    def _treebanks(self) -> bool:
        parts = [part.source for part in self.mixture.values()]
        return set(parts if self.source == "mixture" else [self.source]) <= set(OF_TREES)
