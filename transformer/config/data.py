"""Which text, and how it becomes batches."""

from dataclasses import dataclass

from transformer.config.checks import not_negative, one_of, positive, require


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
class TokenizerConfig:
    kind: str
    vocab_size: int
    character_coverage: float
    lowercase: bool
    train_sentences: int

    def __post_init__(self) -> None:
        one_of("data.tokenizer.kind", self.kind, ("bpe", "unigram"))
        positive("data.tokenizer", self, "train_sentences")
        require(
            self.vocab_size > 260,
            f"data.tokenizer.vocab_size is {self.vocab_size}; 4 special pieces and 256 bytes "
            "come first, so take more than 260",
        )
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
    on_bad_line: str
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
        one_of("data.source", self.source, ("tfds", "text", "casa_roja"))
        one_of("data.on_bad_line", self.on_bad_line, ("refuse", "skip"))
        one_of("data.batching", self.batching, ("buckets", "packed"))
        positive("data", self, "tokens_per_batch", "max_length", "shapes", "packed_length")
        positive("data", self, "row_multiple", "length_multiple")
        not_negative("data", self, "prefetch")
        named = [f"data.text.{key}" for key, path in vars(self.text).items() if path]
        require(
            self.source == "text" or not named,
            f"{' and '.join(named[:2])} are set but data.source is {self.source!r}, which does not "
            "read them: add --config.data.source=text",
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
