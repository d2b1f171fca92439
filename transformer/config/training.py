"""How a run is trained, what is kept of it, and when it stops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.config.checks import fraction, not_negative, one_of, positive, require


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    minutes: float
    label_smoothing: float
    z_loss: float
    loss_chunks: int
    accumulate: int
    clip_norm: float
    ema_decay: float
    log_every: int
    eval_every: int
    eval_bleu: bool
    eval_samples: int

    def __post_init__(self) -> None:
        positive("training", self, "steps", "loss_chunks", "accumulate", "log_every")
        not_negative("training", self, "minutes", "z_loss", "clip_norm")
        not_negative("training", self, "eval_every", "eval_samples")
        fraction("training.label_smoothing", self.label_smoothing)
        fraction("training.ema_decay", self.ema_decay)


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
        positive("checkpoints", self, "every", "keep_last", "average")
        not_negative("checkpoints", self, "keep_best")
        require(
            self.average <= self.keep_last,
            f"checkpoints.average is {self.average} but only keep_last = {self.keep_last} are kept",
        )


@dataclass(frozen=True)
class DivergenceConfig:
    action: str
    spike: float
    window: int
    pass_over: int
    at_most: int

    def __post_init__(self) -> None:
        one_of("divergence.action", self.action, ("stop", "skip", "go_back"))
        positive("divergence", self, "window", "pass_over", "at_most")
        require(
            self.spike == 0.0 or self.spike > 1.0,
            f"divergence.spike is {self.spike}; it multiplies the running mean of the loss, so "
            "take more than 1, or 0 for none",
        )


@dataclass(frozen=True)
class EarlyStoppingConfig:
    metric: str
    patience: int

    def __post_init__(self) -> None:
        one_of("early_stopping.metric", self.metric, ("loss", "bleu"))
        not_negative("early_stopping", self, "patience")

    @property
    def lower_is_better(self) -> bool:
        return self.metric == "loss"
