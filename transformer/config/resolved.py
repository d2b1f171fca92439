"""A whole experiment: its sections, how it decodes and where it runs, its name."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.config.before import without_new_keys
from transformer.config.checks import not_negative, one_of, positive, require
from transformer.config.data import DataConfig
from transformer.config.model import ModelConfig
from transformer.config.training import (
    CheckpointsConfig,
    DivergenceConfig,
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainingConfig,
)
from transformer.errors import UserError

# Optimizers whose updates are as large whatever multiplies the loss: Adam and its kin.
SCALE_FREE = (
    "adam",
    "adamw",
    "adamax",
    "adamaxw",
    "amsgrad",
    "lion",
    "nadam",
    "nadamw",
    "radam",
)


@dataclass(frozen=True)
class DecodingConfig:
    beam: int
    length_penalty: str
    alpha: float
    extra_length: int
    n_best: int
    tokens_per_batch: int
    weights: str

    def __post_init__(self) -> None:
        one_of("decoding.weights", self.weights, ("float", "int8"))
        positive("decoding", self, "beam", "n_best", "tokens_per_batch")
        not_negative("decoding", self, "alpha", "extra_length")
        one_of("decoding.length_penalty", self.length_penalty, ("gnmt", "power"))
        require(
            self.n_best <= self.beam,
            f"decoding.n_best is {self.n_best} but a beam of {self.beam} gives no more than that",
        )


# sacreBLEU's tokenizers that download nothing, and those that fetch a model from the network.
BLEU_TOKENIZERS = ("auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none")
DOWNLOADED = ("spm", "flores101", "flores200", "spBLEU-1K")


@dataclass(frozen=True)
class EvaluationConfig:
    bleu_tokenizer: str

    def __post_init__(self) -> None:
        require(
            self.bleu_tokenizer not in DOWNLOADED,
            f"evaluation.bleu_tokenizer is {self.bleu_tokenizer!r}, which downloads a model, and "
            f"nothing is downloaded here: choose one of {', '.join(BLEU_TOKENIZERS)}",
        )
        one_of("evaluation.bleu_tokenizer", self.bleu_tokenizer, BLEU_TOKENIZERS)


@dataclass(frozen=True)
class MeshConfig:
    data: int
    fsdp: int
    tensor: int
    sequence: int

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            size = getattr(self, axis.name)
            require(
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
    timeout: float

    def __post_init__(self) -> None:
        not_negative("distributed", self, "processes")
        positive("distributed", self, "timeout")
        host, _, port = self.coordinator.rpartition(":")
        require(
            not self.coordinator or (host != "" and port.isdigit()),
            f"distributed.coordinator is {self.coordinator!r}; give host:port of process 0",
        )
        require(
            self.processes == 0 or self.process < self.processes,
            f"distributed.process is {self.process} of {self.processes}; they count from 0",
        )


def plain(config: Any) -> dict[str, Any]:
    """A dataclass of dataclasses as nested dicts, JSON-ready.

    Raises:
        UserError: it holds what JSON has no word for.
    """
    return json.loads(json.dumps(dataclasses.asdict(config), default=_not_json))


def digest_of(tree: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of what JSON can say."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:10]


def _not_json(value: Any) -> Any:
    raise UserError(
        f"the configuration holds {value!r}, a {type(value).__name__}: use numbers, strings, lists "
        "and sections (a dtype by its name)"
    )


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
    divergence: DivergenceConfig
    decoding: DecodingConfig
    evaluation: EvaluationConfig
    mesh: MeshConfig
    sharding: ShardingConfig
    distributed: DistributedConfig

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must be from 0 to 2³¹ - 1")
        require(
            "/" not in self.name and not self.name.startswith("."),
            f"name is {self.name!r}; it names a folder: leave out slashes and a leading dot",
        )
        require(
            self.data.row_multiple % self.training.accumulate == 0,
            f"training.accumulate is {self.training.accumulate}, which does not divide "
            f"data.row_multiple = {self.data.row_multiple}: batches cannot be cut in equal parts",
        )
        require(
            self.model.width_scaling != "mup" or self.optimizer.name in SCALE_FREE,
            "model.width_scaling is 'mup', which is for optimizers whose updates do not grow with "
            f"the gradient; optimizer.name is {self.optimizer.name!r}: choose one of "
            f"{', '.join(SCALE_FREE)}",
        )
        require(
            self.decoding.weights == "float"
            or self.model.family in ("transformer", "decoder", "encoder"),
            f"decoding.weights is {self.decoding.weights!r}, which model.family = "
            f"{self.model.family!r} does not compute with: choose float",
        )
        positions = self.model.positions
        require(
            positions.scheme != "learned" or self._longest <= positions.length,
            f"data.max_length is {self.data.max_length} but model.positions.length = "
            f"{positions.length} learns no more positions, of {self._longest} that a sequence of "
            f"model.family = {self.model.family!r} has then: raise it, and for longer translations "
            "by decoding.extra_length more",
        )
        pixels = self.data.digits.patch_side**2
        require(
            self.data.source != "digits" or self.model.patch in (1, pixels),
            f"model.patch is {self.model.patch} but data.digits.patch_side = "
            f"{self.data.digits.patch_side} writes {pixels} pixels together: make them one",
        )
        require(
            not self.early_stopping.patience or bool(self.training.eval_every),
            "early_stopping.patience is set but training.eval_every = 0 evaluates nothing",
        )
        require(
            self.early_stopping.metric != "bleu" or self.training.eval_bleu,
            "early_stopping.metric is 'bleu' but nothing computes it: set training.eval_bleu=True",
        )

    @property
    def _longest(self) -> int:
        """Positions of the longest sequence: a decoder alone reads the target behind the source."""
        length = self.data.max_length
        if self.model.family == "decoder":
            return 2 * length
        if self.model.family == "encoder":
            return -(-length // self.model.patch) + (self.model.readout == "class")
        return length

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, JSON-ready, as `from_dict` reads them."""
        result = plain(self)
        del result["model"]["vocab_size"]
        return result

    def digest(self) -> str:
        """Ten hexadecimal digits that change when any key but `name` and `distributed` does."""
        tree = without_new_keys(self.as_dict())
        return digest_of({k: v for k, v in tree.items() if k not in ("name", "distributed")})

    @property
    def run_name(self) -> str:
        return self.name or self.digest()
