"""The base configuration as a ConfigDict, which experiment files start from, and its variants."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from transformer.config.comparison import ComparisonConfig
from transformer.config.experiment import Config, plain

Variants = Mapping[str, Any]  # by name: a function that changes a ConfigDict


def base(variant: str = "") -> Any:
    """AIAYN's base model on WMT14 English-German: every key with its default, to be changed.

    `variant`: what follows the `:` of `--config=FILE:smoke`; see `with_variants`.
    """
    config = ConfigDict(_with_tuples(Config().as_dict()))
    return with_variants(config.lock(), variant)


def base_comparison(
    translation: Mapping[str, ConfigDict], recall: Mapping[str, Mapping[str, ConfigDict]]
) -> Any:
    """A comparison of these experiments, by name, every other key with its default."""
    config: Any = ConfigDict()
    for field in dataclasses.fields(ComparisonConfig):
        if field.default is not dataclasses.MISSING:
            default = field.default
            section = dataclasses.is_dataclass(default)
            config[field.name] = _with_tuples(plain(default)) if section else default
    config.translation = ConfigDict(dict(translation))
    config.recall = ConfigDict({task: dict(group) for task, group in recall.items()})
    return config


def with_variants(config: Any, variant: str, variants: Variants | None = None) -> Any:
    """Applies the comma-separated variants that followed the `:` of `--config=FILE:A,B`.

    Raises:
        ValueError: names one that there is not, and those that there are.
    """
    known = {"smoke": smoke, **(variants or {})}
    for name in filter(None, variant.split(",")):
        if name not in known:
            raise ValueError(f"unknown variant {name!r}: this experiment has {', '.join(known)}")
        known[name](config)
    return config


def smoke(config: Any) -> None:
    """Shrinks an experiment to a size that a CPU trains in seconds, on sentences that ship with us.

    Nothing good comes out of it: it shows that everything runs.
    """
    config.model.encoder_layers = config.model.decoder_layers = 2
    config.model.d_model = 32
    config.model.d_ff = 64
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 8
    config.model.recurrent.d_hidden = 32
    config.data.source = "casa_roja"
    config.data.casa_roja.train_size = 2_000
    config.data.casa_roja.dev_size = config.data.casa_roja.test_size = 64
    config.data.tokenizer.vocab_size = 400
    config.data.tokens_per_batch = 512
    config.data.max_length = 64
    config.data.packed_length = 64
    config.data.shapes = 1
    config.training.steps = 60
    config.training.log_every = 5
    config.training.eval_every = 30
    config.optimizer.schedule = "rsqrt"
    config.optimizer.schedule_options = ConfigDict({"scale": 0.02, "warmup_steps": 20})
    config.checkpoints.every = 30
    config.checkpoints.average = 2
    config.decoding.tokens_per_batch = 1_024
    config.decoding.extra_length = 10


def _with_tuples(value: Any) -> Any:
    """JSON's lists as tuples, which a ConfigDict keeps as one value."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
