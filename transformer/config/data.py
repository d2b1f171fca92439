"""How text becomes batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer.config.fields import (
    Section,
    checked,
    choice,
    fraction,
    not_negative,
    positive,
    require,
)
from transformer.config.sources import (
    OF_TREES,
    AgreementConfig,
    CasaRojaConfig,
    DigitsConfig,
    FilesConfig,
    OrchardConfig,
    PartConfig,
    RecallConfig,
    TextConfig,
    TfdsConfig,
    TreebankConfig,
    check_source,
)
from transformer.dotted import is_dotted

KINDS = ("bpe", "unigram")  # of SentencePiece


@dataclass(frozen=True)
class LeaveOutConfig(Section, section="data.leave_out"):
    """Training pairs left out, or kept (False); all are counted and listed in data_report.json."""

    not_utf8: bool = True
    """Bytes that are not UTF-8; kept ones are read as U+FFFD."""
    control_characters: bool = False
    """Control characters; kept: the tokenizer drops them."""
    empty: bool = True
    """A side without text."""
    duplicates: bool = False
    """Second and later occurrences of a pair."""
    held_out: bool = True
    """Pairs that stand in the dev or test set."""


def _kind(key: str, value: str) -> None:
    require(
        value in KINDS or is_dotted(value),
        f"{key} is {value!r}; choose one of {', '.join(KINDS)}, or give a class of your own, "
        '"module:Class"',
    )


def _vocab_size(key: str, value: int) -> None:
    require(
        value > 260,
        f"{key} is {value}; 4 special pieces and 256 bytes come first, so take more than 260",
    )
    require(value < 2**31, f"{key} is {value}; it must be at most {2**31 - 1:,}")


def _coverage(key: str, value: float) -> None:
    require(0.9 <= value <= 1.0, f"{key} is {value}; it must be from 0.9 to 1")


@dataclass(frozen=True)
class TokenizerConfig(Section, section="data.tokenizer"):
    """SentencePiece, one vocabulary for both languages; or a tokenizer of your own."""

    kind: str = checked("bpe", _kind)
    """bpe or unigram; or a class of your own, "module:Class"; see docs/extending.md."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the training of a class of your own."""
    path: str = ""
    """A SentencePiece model that exists, taken as it is but for the ids of its special pieces; "":
    one is trained on the corpus."""
    vocab_size: int = checked(37_000, _vocab_size)
    """V: pieces, special and byte pieces included."""
    character_coverage: float = checked(1.0, _coverage)
    """Share of characters with a piece; bytes spell the rest."""
    lowercase: bool = False
    """Lower case before anything else, both sides."""
    train_sentences: int = positive(2_000_000)
    """Sentences to train on at most, of each side, evenly from the training split."""
    split_scripts: bool = True
    """A piece ends where the script changes (SentencePiece's default); False: "(NP" can be one."""
    sampling: float = fraction(0.0)
    """Pieces drawn anew in each epoch of training: BPE-dropout's probability, or unigram's alpha
    (subword regularisation); 0: none. It costs a pass of tokenising in Python an epoch, and shapes
    that may differ by epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.kind in KINDS or not self.path,
            f"data.tokenizer.path is {self.path!r}, a SentencePiece model, but data.tokenizer.kind "
            f"is {self.kind!r}: give one of them",
        )
        require(
            not self.lowercase or (self.kind in KINDS and not self.path),
            "data.tokenizer.lowercase is True, but it is part of a tokenizer that is trained here: "
            "set it False, as data.tokenizer.path and a kind of your own have their own rules",
        )
        require(
            self.kind not in KINDS or not self.options,
            f"data.tokenizer.options is set but data.tokenizer.kind is {self.kind!r}, whose keys "
            "stand beside it: leave it out",
        )
        require(
            self.kind in KINDS or self.sampling == 0.0,
            f"data.tokenizer.sampling is {self.sampling} but data.tokenizer.kind is {self.kind!r}: "
            "only SentencePiece's pieces are drawn anew, so set it to 0",
        )


def _max_ratio(key: str, value: float) -> None:
    require(value == 0.0 or value >= 1.0, f"{key} is {value}; take 1 or more, or 0 for any")


@dataclass(frozen=True)
class DataConfig(Section, section="data"):
    """The corpus, its tokens and its batches."""

    source: str = "tfds"
    """The origin of the pairs: the section of this name, or the mixture of several; or a class of
    your own, "module:Class", that answers data.sources.Corpus."""
    source_options: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of a source of your own."""
    tfds: TfdsConfig = TfdsConfig()
    text: TextConfig = TextConfig()
    casa_roja: CasaRojaConfig = CasaRojaConfig()
    recall: RecallConfig = RecallConfig()
    treebank: TreebankConfig = TreebankConfig()
    orchard: OrchardConfig = OrchardConfig()
    files: FilesConfig = FilesConfig()
    agreement: AgreementConfig = AgreementConfig()
    digits: DigitsConfig = DigitsConfig()
    mixture: Mapping[str, PartConfig] = field(default_factory=dict)
    """Several corpora trained on together, by name; dev and test are those of the first part, by
    name, that has them. Each part gives its source's section as above:

        config.data.mixture = ConfigDict({
            "news": {"source": "tfds", "rate": 1.0, "tfds": config.data.tfds.to_dict()},
            "talks": {"source": "text", "rate": 2.5, "text": {"train_source": "a.en", ...}}})
    """
    side: str = choice("both", "source", "target")
    """both: pairs of source and target. source, target: that side alone, its own target."""
    masked: float = fraction(0.0)
    """Share of source tokens masked, anew in each batch, the only ones that count in the loss: 0.15
    by Devlin et al. 2019. It needs data.side; see transformer/data/masking.py."""
    leave_out: LeaveOutConfig = LeaveOutConfig()
    max_ratio: float = checked(0.0, _max_ratio)
    """Tokens of the longer side over the shorter's, at most; 0: any."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    batching: str = choice("buckets", "packed")
    """buckets: pad to few lengths. packed: several sentences a row."""
    tokens_per_batch: int = positive(25_000)
    """Rows x length of each side, padding included, at most."""
    max_length: int = positive(256)
    """Tokens of one side, </s> included; longer training pairs are left out."""
    shapes: int = positive(12)
    """Compiled shapes at most, when bucketing."""
    packed_length: int = positive(256)
    """Tokens of a packed row, each side."""
    row_multiple: int = positive(8)
    """Rows of every batch are a multiple of this."""
    length_multiple: int = positive(8)
    """Lengths of every batch are a multiple of this."""
    prefetch: int = not_negative(2)
    """Batches kept ready on the device."""
    prepared: str = ""
    """A corpus that `transformer prepare --to` has made, a folder or gs://BUCKET/NAME: its tokens
    and its tokenizer are taken, and the text itself is not read."""
    cache_dir: str = ""
    """Folder of tokenised corpora and tokenizers; "": $XDG_CACHE_HOME/transformer, or
    ~/.cache/transformer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source("data.source", self.source, self.source_options, "mixture")
        for name, part in self.mixture.items():
            part.check(name)
        require(
            self.source != "mixture" or bool(self.mixture),
            "data.source is 'mixture' but data.mixture is empty: name its parts",
        )
        require(
            len(self.mixture) < 2**16, f"data.mixture has {len(self.mixture):,} parts: too many"
        )
        require(
            self.masked == 0.0 or self.side != "both",
            f"data.masked is {self.masked}; what is masked is to be restored, so source and target "
            "are one text: set data.side to source or target",
        )
        tokenizer = self.tokenizer
        require(
            self.masked == 0.0 or (tokenizer.kind in KINDS and not tokenizer.path),
            f"data.masked is {self.masked}; masking counts on the pieces of a tokenizer that is "
            "trained here: leave out data.tokenizer.path, and take bpe or unigram",
        )
        require(
            self.masked == 0.0 or self.tokenizer.sampling == 0.0,
            "data.masked and data.tokenizer.sampling are both set: sampling would cut the target "
            "otherwise than the source",
        )
        for section in ("text", "treebank"):
            files, none = vars(getattr(self, section)), vars(type(getattr(self, section))())
            named = [f"data.{section}.{key}" for key in files if files[key] != none[key]]
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
