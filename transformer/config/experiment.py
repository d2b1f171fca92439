"""A whole experiment: its sections, how it decodes and where it runs, its name."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from transformer.config.data import DataConfig
from transformer.config.fields import (
    Section,
    checked,
    choice,
    not_negative,
    positive,
    require,
)
from transformer.config.model import ModelConfig
from transformer.config.training import (
    CheckpointsConfig,
    DivergenceConfig,
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainingConfig,
)
from transformer.dotted import is_dotted
from transformer.errors import UserError
from transformer.nested import without

# Folders, which each machine may have elsewhere; what is read in them is compared by its content.
CACHES = ("data.cache_dir", "data.tfds.data_dir", "data.mixture.*.tfds.data_dir")
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


@dataclass(frozen=True)
class DecodingConfig(Section, section="decoding"):
    """How sentences are translated."""

    beam: int = positive(4)
    """Beam width, W; 1 is greedy search."""
    length_penalty: str = choice("gnmt", "power")
    """gnmt: ((5 + length) / 6)^alpha (AIAYN). power: length^alpha."""
    alpha: float = not_negative(0.6)
    """The length penalty's exponent."""
    extra_length: int = not_negative(50)
    """Output tokens at most: the source's + this (AIAYN §6.1)."""
    n_best: int = positive(1)
    """Translations given for each sentence, best first; at most the beam."""
    tokens_per_batch: int = positive(4_096)
    """Source tokens translated together, padding included."""
    weights: str = choice("float", "int8")
    """int8: quantized weights (Transformers alone): smaller, on CPUs mostly faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.n_best <= self.beam,
            f"decoding.n_best is {self.n_best} but a beam of {self.beam} gives no more than that",
        )


# sacreBLEU's tokenizers that download nothing, and those that fetch a model from the network.
BLEU_TOKENIZERS = ("auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none")
DOWNLOADED = ("spm", "flores101", "flores200", "spBLEU-1K")


def _bleu_tokenizer(key: str, value: str) -> None:
    names = ", ".join(BLEU_TOKENIZERS)
    require(
        value not in DOWNLOADED,
        f"{key} is {value!r}, which downloads a model, and nothing is downloaded here: choose one "
        f"of {names}",
    )
    require(value in BLEU_TOKENIZERS, f"{key} is {value!r}; choose one of {names}")


def _metrics(key: str, value: tuple[str, ...]) -> None:
    for name in value:
        require(is_dotted(name), f'{key} has {name!r}; give functions, "module:function" each')


@dataclass(frozen=True)
class EvaluationConfig(Section, section="evaluation"):
    """How translations are scored."""

    bleu_tokenizer: str = checked("auto", _bleu_tokenizer)
    """sacreBLEU's, which says what a word is. auto: by the script of the references, once per run.
    13a: words between spaces. intl, zh, ja-mecab (extra `ja`), ko-mecab (extra `ko`). char: for
    scripts without spaces. none."""
    metrics: tuple[str, ...] = checked((), _metrics)
    """Further measures of your own, "module:function" each: of translations and references, two
    lists, a number, under the function's name."""


def _axis(key: str, value: int) -> None:
    require(
        value == -1 or value > 0, f"{key} is {value}; give a number, or -1 for all that are left"
    )


@dataclass(frozen=True)
class MeshConfig(Section, section="mesh"):
    """Devices along each axis; -1: all that are left."""

    data: int = checked(-1, _axis)
    """Data parallelism: batch rows split, parameters copied."""
    fsdp: int = checked(1, _axis)
    """Fully sharded data parallelism: batch rows and parameters split."""
    tensor: int = checked(1, _axis)
    """Tensor parallelism: heads, feed-forward and vocabulary split."""
    sequence: int = checked(1, _axis)
    """Sequence parallelism (context parallelism): positions split, in encoder, decoder and loss."""


@dataclass(frozen=True)
class ShardingConfig(Section, section="sharding"):
    """Which axes of the mesh split which logical axes of arrays."""

    rules: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("batch", ("data", "fsdp")),
        ("length", ("sequence",)),
        ("embed", ("fsdp",)),
        ("hidden", ()),
        ("heads", ("tensor",)),
        ("kv_heads", ("tensor",)),
        ("head_size", ()),
        ("mlp", ("tensor",)),
        ("gates", ()),
        ("state", ("tensor",)),
        ("vocab", ("tensor",)),
        ("layers", ()),
    )
    """Logical axis → mesh axes; (): not split."""


def _coordinator(key: str, value: str) -> None:
    host, _, port = value.rpartition(":")
    require(
        not value or (host != "" and port.isdigit()),
        f"{key} is {value!r}; give host:port of process 0",
    )


@dataclass(frozen=True)
class DistributedConfig(Section, section="distributed"):
    """Several processes of one run."""

    enabled: bool = False
    """Several processes, one run: each starts the same command."""
    coordinator: str = checked("", _coordinator)
    """host:port of process 0; "": found from the environment."""
    processes: int = not_negative(0)
    """How many; 0: found from the environment."""
    process: int = -1
    """Which one this is; -1: found from the environment."""
    timeout: float = positive(300.0)
    """Seconds to wait for the others at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
    def load(
        cls, experiment: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
    ) -> "Config":
        """Loads an experiment file, FILE or FILE:VARIANT, with changes by key.

            Config.load("experiments/casa_roja.py", {"model.d_model": 256})

        Raises:
            UserError: the file or a key does not exist, or a value cannot work.
        """
        from transformer.config.experiment_files import load_config

        return load_config(os.fspath(experiment), changes or {})

    @classmethod
    def of(cls, experiment: Any) -> "Config":
        """Makes a configuration of a ConfigDict, as experiment files make them, or nested dicts.

            config = transformer.config.base("smoke")
            config.model.d_model = 48
            transformer.train(Config.of(config), "runs/mine")

        Raises:
            UserError: a key does not exist, or a value cannot work.
        """
        from transformer.config.parse import from_dict

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
