"""An experiment's ConfigDict as frozen dataclasses; bad values are refused here, with a reason.

`experiments/base.py` documents every key. Here stand the same names with their types, and what each
value must satisfy. `from_dict` refuses a key that is unknown (naming the nearest one), one that is
missing, a value of another type, and whatever a section's `__post_init__` finds wrong.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{key} is {value!r}; choose one of {', '.join(allowed)}")


def _positive(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value > 0, f"{section}.{name} is {value}; it must be above 0")


def _not_negative(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value >= 0, f"{section}.{name} is {value}; it must be 0 or above")


def _fraction(key: str, value: float) -> None:
    _require(0.0 <= value < 1.0, f"{key} is {value}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class AttentionConfig:
    backend: str


@dataclass(frozen=True)
class ModelConfig:
    family: str
    encoder_layers: int
    decoder_layers: int
    d_model: int
    d_ff: int
    heads: int
    d_k: int
    d_v: int
    dropout: float
    norm: str
    norm_epsilon: float
    dtype: str
    unroll: bool
    remat: str
    attention: AttentionConfig
    vocab_size: int  # data.tokenizer.vocab_size: the one key that two sections share

    def __post_init__(self) -> None:
        _positive("model", self, "encoder_layers", "decoder_layers", "d_model", "d_ff", "heads")
        _positive("model", self, "d_k", "d_v", "norm_epsilon")
        _fraction("model.dropout", self.dropout)
        _one_of("model.norm", self.norm, ("post", "pre"))
        _one_of("model.dtype", self.dtype, ("auto", "float32", "bfloat16"))
        _one_of("model.remat", self.remat, ("none", "full"))
        _require(
            self.d_model % 2 == 0,
            f"model.d_model is {self.d_model}; sinusoidal positions need an even width: "
            f"take {self.d_model + 1}",
        )


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
        _positive("data.casa_roja", self, "train_size", "dev_size", "test_size")


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str
    vocab_size: int
    character_coverage: float
    lowercase: bool
    train_sentences: int

    def __post_init__(self) -> None:
        _one_of("data.tokenizer.kind", self.kind, ("bpe", "unigram"))
        _positive("data.tokenizer", self, "train_sentences")
        _require(
            self.vocab_size > 260,
            f"data.tokenizer.vocab_size is {self.vocab_size}; 4 special pieces and 256 bytes "
            "come first, so take more than 260",
        )
        _require(
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
        _one_of("data.source", self.source, ("tfds", "text", "casa_roja"))
        _one_of("data.on_bad_line", self.on_bad_line, ("refuse", "skip"))
        _one_of("data.batching", self.batching, ("buckets", "packed"))
        _positive("data", self, "tokens_per_batch", "max_length", "shapes", "packed_length")
        _positive("data", self, "row_multiple", "length_multiple")
        _not_negative("data", self, "prefetch")
        length = self.max_length if self.batching == "buckets" else self.packed_length
        key = "max_length" if self.batching == "buckets" else "packed_length"
        _require(
            length % self.length_multiple == 0,
            f"data.{key} is {length}, no multiple of data.length_multiple = "
            f"{self.length_multiple}: take {length + -length % self.length_multiple}",
        )
        _require(
            length * self.row_multiple <= self.tokens_per_batch,
            f"data.tokens_per_batch is {self.tokens_per_batch}, too few for data.row_multiple = "
            f"{self.row_multiple} rows of data.{key} = {length}: take at least "
            f"{length * self.row_multiple}",
        )


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    minutes: float
    label_smoothing: float
    loss_chunks: int
    accumulate: int
    clip_norm: float
    ema_decay: float
    log_every: int
    eval_every: int
    eval_bleu: bool
    eval_samples: int

    def __post_init__(self) -> None:
        _positive("training", self, "steps", "loss_chunks", "accumulate", "log_every")
        _not_negative("training", self, "minutes", "clip_norm", "eval_every", "eval_samples")
        _fraction("training.label_smoothing", self.label_smoothing)
        _fraction("training.ema_decay", self.ema_decay)


@dataclass(frozen=True)
class OptimizerConfig:
    name: str
    options: Mapping[str, Any]
    schedule: str
    schedule_options: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointsConfig:
    every: int
    keep_last: int
    keep_best: int
    average: int

    def __post_init__(self) -> None:
        _positive("checkpoints", self, "every", "keep_last", "average")
        _not_negative("checkpoints", self, "keep_best")
        _require(
            self.average <= self.keep_last,
            f"checkpoints.average is {self.average} but only keep_last = {self.keep_last} are kept",
        )


@dataclass(frozen=True)
class EarlyStoppingConfig:
    metric: str
    patience: int

    def __post_init__(self) -> None:
        _one_of("early_stopping.metric", self.metric, ("loss", "bleu"))
        _not_negative("early_stopping", self, "patience")

    @property
    def lower_is_better(self) -> bool:
        return self.metric == "loss"


@dataclass(frozen=True)
class DecodingConfig:
    beam: int
    length_penalty: str
    alpha: float
    extra_length: int
    n_best: int
    tokens_per_batch: int

    def __post_init__(self) -> None:
        _positive("decoding", self, "beam", "n_best", "tokens_per_batch")
        _not_negative("decoding", self, "alpha", "extra_length")
        _one_of("decoding.length_penalty", self.length_penalty, ("gnmt", "power"))
        _require(
            self.n_best <= self.beam,
            f"decoding.n_best is {self.n_best} but a beam of {self.beam} gives no more than that",
        )


@dataclass(frozen=True)
class MeshConfig:
    data: int
    fsdp: int
    tensor: int

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            size = getattr(self, axis.name)
            _require(
                size == -1 or size > 0,
                f"mesh.{axis.name} is {size}; give a number, or -1 for all that are left",
            )


@dataclass(frozen=True)
class ShardingConfig:
    rules: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class DistributedConfig:
    enabled: bool
    coordinator: str
    processes: int
    process: int


@dataclass(frozen=True)
class Config:
    """One experiment, resolved: every key has a value of its own type."""

    name: str
    seed: int
    data: DataConfig  # before the model, which takes its vocabulary's size
    model: ModelConfig
    training: TrainingConfig
    optimizer: OptimizerConfig
    checkpoints: CheckpointsConfig
    early_stopping: EarlyStoppingConfig
    decoding: DecodingConfig
    mesh: MeshConfig
    sharding: ShardingConfig
    distributed: DistributedConfig

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must be from 0 to 2³¹ - 1")
        _require(
            self.data.row_multiple % self.training.accumulate == 0,
            f"training.accumulate is {self.training.accumulate}, which does not divide "
            f"data.row_multiple = {self.data.row_multiple}: batches cannot be cut in equal parts",
        )
        _require(
            self.early_stopping.metric != "bleu" or self.training.eval_bleu,
            "early_stopping.metric is 'bleu' but nothing computes it: set training.eval_bleu=True",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, JSON-ready, as `from_dict` reads them."""
        result = json.loads(json.dumps(dataclasses.asdict(self)))
        del result["model"]["vocab_size"]
        return result

    def digest(self) -> str:
        """Ten hexadecimal digits that change when any key but `name` and `distributed` does."""
        content = {k: v for k, v in self.as_dict().items() if k not in ("name", "distributed")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def run_name(self) -> str:
        return self.name or self.digest()


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The resolved configuration of an experiment.

    Args:
        tree: nested mappings (a ConfigDict's `to_dict()`, or parsed JSON) with base.py's keys.

    Raises:
        UserError: a key is unknown, missing or of another type, or a value cannot work.
    """
    tree = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }
    with contextlib.suppress(KeyError, TypeError):  # a missing section is reported below
        tree["model"] = {**tree["model"], "vocab_size": tree["data"]["tokenizer"]["vocab_size"]}
    return _build(Config, tree, "")


def _build(kind: type, tree: Any, path: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(f"config.{path.rstrip('.')} is {tree!r}; it must be a section of keys")
    kinds = typing.get_type_hints(kind)
    for key in tree:
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0)
            raise UserError(f"unknown key config.{path}{key}: did you mean config.{path}{near[0]}?")
    for key in kinds:
        if key not in tree:
            raise UserError(
                f"config.{path}{key} is missing: start from experiments/base.py, which has them all"
            )
    return kind(**{key: _convert(kinds[key], tree[key], path + key) for key in kinds})


def _convert(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, path + ".")
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"config.{path} is {value!r}; it must be a list")
        inner = typing.get_args(kind)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            raise UserError(f"config.{path} has an item {value!r} of a wrong length")
        return tuple(_convert(k, v, path) for k, v in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UserError(
            f"config.{path} is {value!r}, a {type(value).__name__}; it must be {kind.__name__}"
        )
    return value
