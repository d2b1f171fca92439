"""A whole experiment: its sections, how it decodes and where it runs, its name."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, TypeVar

from transformer.config.data import DataConfig
from transformer.config.decoding import DecodingConfig, EvaluationConfig
from transformer.config.devices import DistributedConfig, MeshConfig, ShardingConfig
from transformer.config.experiment_code import keys_of
from transformer.config.fields import (
    Section,
    checked,
    require,
)
from transformer.config.model import ModelConfig
from transformer.config.parse import build
from transformer.config.training import (
    CheckpointsConfig,
    DivergenceConfig,
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainingConfig,
)
from transformer.errors import UserError
from transformer.nested import without

# Folders, which each machine may have elsewhere; what is read in them is compared by its content.
CACHES = (
    "data.cache_dir",
    "data.prepared",
    "data.tfds.data_dir",
    "data.mixture.*.tfds.data_dir",
)
# Files, which each machine may have elsewhere; what is read in them is compared by its content.
FILES = (
    "data.text",
    "data.tokenizer.path",
    "data.treebank",
    "data.files.patterns",
    "data.mixture.*.text",
    "data.mixture.*.treebank",
    "data.mixture.*.files.patterns",
)
# Where and as what a run runs: nothing that comes of it depends on these.
PLACEMENT_KEYS = ("name", "distributed", "mesh", "data.prefetch", *CACHES)

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


def _seed(key: str, value: int) -> None:
    require(0 <= value < 2**31, f"{key} is {value}; it must be from 0 to 2³¹ - 1")


def _name(key: str, value: str) -> None:
    require(
        "/" not in value and not value.startswith("."),
        f"{key} is {value!r}; it names a folder: leave out slashes and a leading dot",
    )


@dataclass(frozen=True)
class Config(Section):
    """One experiment, resolved. By default the base model of the paper on WMT14 English-German."""

    is_experiment: ClassVar[bool] = True
    """Errors of a configuration of several experiments say which one's they are."""

    name: str = checked("", _name)
    """The run's; "": a hash of the resolved configuration."""
    seed: int = checked(0, _seed)
    """The seed of everything random: initial parameters, dropout, order of the data."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    decoding: DecodingConfig = DecodingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()
    sharding: ShardingConfig = ShardingConfig()
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.data.row_multiple % self.training.accumulate == 0,
            f"training.accumulate is {self.training.accumulate}, which does not divide "
            f"data.row_multiple = {self.data.row_multiple}: no microbatches of equal size",
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

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gives the model the tokenizer's vocabulary; a wrong type of section is reported later."""
        try:
            size = tree.get("data", {}).get("tokenizer", {})["vocab_size"]
            model = {**tree.get("model", {}), "vocab_size": size}
        except (KeyError, TypeError, AttributeError):
            return tree
        return {**tree, "model": model}

    @classmethod
    def load(
        cls, experiment: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
    ) -> "Config":
        """Loads an experiment file, FILE or FILE:VARIANT, with changes by key.

            Config.load("experiments/casa_roja.py", {"model.d_model": 256})

        Raises:
            UserError: the file or a key does not exist, or a value cannot work.
        """
        return from_dict(keys_of(os.fspath(experiment), changes or {}))

    @classmethod
    def of(cls, experiment: Any) -> "Config":
        """Makes a configuration of a ConfigDict, as experiment files make them, or nested dicts.

            config = transformer.config.base("smoke")
            config.model.d_model = 48
            transformer.train(Config.of(config), "runs/mine")

        Raises:
            UserError: a key does not exist, or a value cannot work.
        """
        if isinstance(experiment, cls):
            return experiment
        if not isinstance(experiment, Mapping) and hasattr(experiment, "to_dict"):
            experiment = experiment.to_dict()
        if not isinstance(experiment, Mapping):
            raise UserError(
                f"Config.of takes a ConfigDict or nested dicts, no {type(experiment).__name__}: a "
                "file is read by Config.load"
            )
        return from_dict(experiment)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, JSON-ready, as `from_dict` reads them."""
        result = plain(self)
        del result["model"]["vocab_size"]
        return result

    def digest(self) -> str:
        """Ten hexadecimal digits of what the run computes.

        They change when any key does that is not one of PLACEMENT_KEYS.
        """
        return digest_of(without_defaults(without(self.as_dict(), PLACEMENT_KEYS)))

    @property
    def run_name(self) -> str:
        return self.name or self.digest()


T = TypeVar("T", bound=Section)


def from_dict(tree: Mapping[str, Any], kind: type[T] = Config) -> T:
    """The resolved configuration of an experiment, or of a comparison of several.

    Args:
        tree: nested mappings (a ConfigDict's `to_dict()`, or parsed JSON); a key that is not in it
            has its default.
        kind: which of the two.

    Raises:
        UserError: a key is unknown or of another type, or a value cannot work.
    """
    return build(kind, tree)


def is_default(key: str, value: Any) -> bool:
    """Whether a key of an experiment has its default, or all keys below it have theirs.

    `key` may have parts before the experiment's own, as in a report on several experiments.
    """
    if isinstance(value, Mapping) and value:
        return all(is_default(f"{key}.{name}", inner) for name, inner in value.items())
    parts = key.split(".")
    tails = (".".join(parts[start:]) for start in range(len(parts)))
    return any(tail in _flat_defaults() and _flat_defaults()[tail] == value for tail in tails)


@cache
def _flat_defaults() -> dict[str, Any]:
    return dict(_flat(Config().as_dict()))


def _flat(tree: Mapping[str, Any], path: str = "") -> Any:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield path + name, value


def without_defaults(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """An experiment's nested mappings without the keys that have their default.

    So a new key, whose default is what was done before it came, changes no run's hash.
    """
    result = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            if inner := without_defaults(value, f"{path}{name}."):
                result[name] = inner
        elif not is_default(path + name, value):
            result[name] = value
    return result
