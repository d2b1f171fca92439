"""How a run is trained, what is kept of it, and when it stops."""

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


@dataclass(frozen=True)
class TrainingConfig(Section, section="training"):
    """The training loop and its loss."""

    steps: int = positive(100_000)
    """Optimizer updates."""
    minutes: float = not_negative(0.0)
    """Stop after this much wall time even if steps are left; 0: no limit."""
    label_smoothing: float = fraction(0.1)
    """ε_ls (AIAYN §5.4), over all V pieces, as PyTorch has it."""
    z_loss: float = not_negative(0.0)
    """Times the square of the log of the softmax's normaliser, added (PaLM, 2022, §5: 1e-4)."""
    loss_chunks: int = positive(8)
    """The output projection runs in this many pieces of the target length."""
    accumulate: int = positive(1)
    """Gradient accumulation: equal microbatches of a batch, computed one after another."""
    clip_norm: float = not_negative(0.0)
    """Gradient clipping: the global norm at most; 0: none."""
    ema_decay: float = fraction(0.0)
    """Decay of a moving average (EMA) of the parameters, evaluated in their place; 0: none."""
    log_every: int = positive(100)
    """Steps."""
    eval_every: int = not_negative(5_000)
    """Steps; on the development set; 0: never."""
    eval_bleu: bool = False
    """Whether each evaluation also translates the development set."""
    eval_samples: int = not_negative(3)
    """Development sentences translated and shown at each evaluation."""


@dataclass(frozen=True)
class OptimizerConfig(Section, section="optimizer"):
    """Any optimizer and schedule of Optax. Its options are a section, replaced as a whole:

    config.optimizer.options = ConfigDict({"b1": 0.9, "weight_decay": 0.1})
    """

    name: str = "adam"
    """An optimizer of optax or optax.contrib, or "module:function"."""
    options: Mapping[str, Any] = field(default_factory=lambda: {"b1": 0.9, "b2": 0.98, "eps": 1e-9})
    """The optimizer's arguments but the learning rate (AIAYN §5.3)."""
    schedule: str = "rsqrt"
    """The learning rate's: rsqrt, the paper's (Noam); or cosine_decay, warmup_cosine_decay ... of
    optax; or "module:function"."""
    schedule_options: Mapping[str, Any] = field(
        default_factory=lambda: {"scale": 512**-0.5, "warmup_steps": 4_000}
    )
    """The schedule's arguments (AIAYN Eq. 3)."""


@dataclass(frozen=True)
class CheckpointsConfig(Section, section="checkpoints"):
    """Which checkpoints are kept, and which are averaged."""

    every: int = positive(1_500)
    """Steps."""
    keep_last: int = positive(5)
    keep_best: int = not_negative(1)
    """The best by early_stopping.metric, kept beside the last ones; 0: none."""
    average: int = positive(5)
    """Checkpoint averaging: evaluation uses the mean of this many last ones; 1: the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.average <= self.keep_last,
            f"checkpoints.average is {self.average} but only keep_last = {self.keep_last} are kept",
        )


def _spike(key: str, value: float) -> None:
    require(
        value == 0.0 or value > 1.0,
        f"{key} is {value}; it multiplies the running mean of the loss, so take more than 1, or 0 "
        "for none",
    )


@dataclass(frozen=True)
class DivergenceConfig(Section, section="divergence"):
    """What happens when a loss or gradient is not finite, or the loss spikes."""

    action: str = choice("stop", "skip", "rollback")
    """stop: with an error. skip: leave that update out (the schedule waits for it). rollback: go
    back to the last regular or best checkpoint, and skip the batches that did it. Each is noted in
    metrics.jsonl with its examples."""
    spike: float = checked(0.0, _spike)
    """A loss this many times its running mean is a spike; 0: none is."""
    window: int = positive(100)
    """Steps that the running mean looks back, and the first to be judged."""
    skip_batches: int = positive(1)
    """rollback: batches skipped, up to the one that showed it."""
    max_times: int = positive(10)
    """skip: so many consecutive ones, rollback: so many in all; one more stops."""


@dataclass(frozen=True)
class EarlyStoppingConfig(Section, section="early_stopping"):
    """When training ends before its last step."""

    metric: str = choice("loss", "bleu")
    """A measure of the development set: loss (lower is better), bleu (higher)."""
    patience: int = not_negative(0)
    """Evaluations without a better one before stopping; 0: never stop early."""

    @property
    def lower_is_better(self) -> bool:
        return self.metric == "loss"
