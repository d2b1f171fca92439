"""A step that went wrong: numbers that are not finite, or a loss far above what it was.

The step itself judges (`judge`), so that a bad update can be left out on the devices; the host
(`DivergenceMonitor`) learns of it when it reads the step's metrics, notes it with the examples of
the batch, and stops or rolls back as `divergence.action` says. All that is judged by is part of
the state: a run that was stopped and continued judges alike.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.checkpoints import LossBaseline
from transformer.config import DivergenceConfig
from transformer.data import Batches
from transformer.errors import UserError
from transformer.training.metrics import Metrics

SHOWN = 1_000  # examples named at most in one event


class Trouble(enum.IntEnum):
    """What is wrong with a step."""

    NONE = 0
    NOT_FINITE = 1
    SPIKE = 2


REASONS = {
    Trouble.NOT_FINITE: "the loss, the gradients or the update are not finite",
    Trouble.SPIKE: "the loss spiked",
}


def judge(
    baseline: LossBaseline,
    loss: Float[Array, ""],
    norms: Float[Array, " norms"],
    config: DivergenceConfig,
) -> tuple[Int[Array, ""], LossBaseline]:
    """A step's `Trouble`, and what the next one is judged by.

    Args:
        baseline: from the steps before.
        loss: of this step.
        norms: of its gradients and of its update; only whether they are finite counts.
        config: how large a loss is a spike, and how far back the mean looks.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norms).all()
    trouble = jnp.where(finite, Trouble.NONE, Trouble.NOT_FINITE).astype(jnp.int32)
    if config.spike:
        known = baseline.good_steps >= config.window
        spike = finite & known & (loss > config.spike * baseline.loss)
        trouble = jnp.where(spike, Trouble.SPIKE, trouble).astype(jnp.int32)
    good = trouble == Trouble.NONE
    window = jnp.minimum(baseline.good_steps + 1, config.window).astype(jnp.float32)
    return trouble, LossBaseline(
        loss=jnp.where(good, baseline.loss + (loss - baseline.loss) / window, baseline.loss),
        good_steps=baseline.good_steps + good,
        consecutive_bad=jnp.where(good, 0, baseline.consecutive_bad + 1),
    )


@dataclass(frozen=True)
class SkippedBatches:
    """Batches that this run leaves out for ever, and how often it rolled back to do so."""

    batches: tuple[int, ...] = ()  # their places in the order of all batches, rising
    rollbacks: int = 0

    def after(self, rollback: "Rollback", first: int) -> "SkippedBatches":
        """Adds the batches that made a run roll back, but for those before place `first`.

        The state that it rolls back to has learned from these already.
        """
        more = [batch for batch in rollback.batches if batch >= first]
        return SkippedBatches(tuple(sorted({*self.batches, *more})), self.rollbacks + 1)


class Rollback(Exception):
    """Training is to go on from the newest checkpoint, without some batches."""

    def __init__(self, step: int, reason: str, batches: list[int], examples: list[int]):
        super().__init__(reason)
        self.step, self.reason, self.batches, self.examples = step, reason, batches, examples

    def as_event(self, skipped: SkippedBatches) -> dict[str, Any]:
        """Describes it for `metrics.jsonl`."""
        return {
            "from": self.step,
            "reason": self.reason,
            "examples": self.examples,
            "skipped_batches": [*skipped.batches],
        }


class DivergenceMonitor:
    """Acts on each step's trouble, one step late, as `Metrics` writes its numbers."""

    def __init__(
        self,
        config: DivergenceConfig,
        metrics: Metrics,
        batches: Batches,
        skipped: SkippedBatches,
        has_checkpoints: Callable[[], bool],
    ):
        self._config, self._metrics, self._batches = config, metrics, batches
        self._skipped, self._has_checkpoints = skipped, has_checkpoints
        self._pending: tuple[int, Any, Any] | None = None

    def step(self, step: int, trouble: Int[Array, ""], consecutive: Int[Array, ""]) -> None:
        """Takes a step's judgement, and acts on that of the step before; see `settle`."""
        self.settle()
        self._pending = (step, trouble, consecutive)

    def settle(self) -> None:
        """Acts on what is queued; to be called before anything is saved or evaluated.

        Raises:
            Rollback: that is what the configuration asks for.
            UserError: training stops here.
        """
        if self._pending is None:
            return
        step, trouble, consecutive = self._pending
        self._pending = None
        if trouble := Trouble(int(np.asarray(trouble))):
            self._act(step, REASONS[trouble], int(np.asarray(consecutive)))

    def _act(self, step: int, reason: str, consecutive: int) -> None:
        config, max_times = self._config, self._config.max_times
        first = step if config.action != "rollback" else max(step - config.skip_batches + 1, 1)
        steps = range(first, step + 1)
        batches = [self._batches.position(step - 1) for step in steps]
        examples = [int(i) for step in steps for i in self._batches.examples(step - 1)][:SHOWN]
        rolls_back = config.action == "rollback" and self._skipped.rollbacks < max_times
        skipped = config.action == "skip" and consecutive <= max_times
        if rolls_back:
            raise Rollback(step, reason, batches, examples)
        event = "skipped" if skipped else "diverged"
        self._metrics.event(step, event, reason=reason, batches=batches, examples=examples)
        self._metrics.print(f"step {step:,} {event}: {reason}; its examples are in metrics.jsonl")
        if not skipped:
            hint = {
                "stop": "divergence.action=skip or rollback would go on",
                "skip": f"more than divergence.max_times = {max_times} consecutive updates were "
                "left out",
                "rollback": f"it has rolled back divergence.max_times = {max_times} times",
            }[config.action]
            good = (
                "The checkpoints before it are good"
                if self._has_checkpoints()
                else ("No checkpoint had been saved before it")
            )
            raise UserError(
                f"training diverged at step {step:,}: {reason} (metrics.jsonl has the examples of "
                f"its batch). {good}; {hint}; a smaller learning rate, "
                "a longer warm-up or training.clip_norm may prevent it"
            )
