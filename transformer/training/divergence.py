"""A step that went wrong: numbers that are not finite, or a loss far above what it was.

The step itself judges (`judge`), so that a bad update can be left out on the devices; the host
(`Watch`) learns of it when it reads the step's metrics, notes it with the examples that were in
the batch, and stops or goes back as `divergence.action` says. All that is judged by is part of
the state: a run that was stopped and continued judges alike.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

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


@struct.dataclass
class Typical:
    """What a step is judged by: the running mean of the loss over the good steps so far."""

    loss: Any  # float32 []
    good: Any  # int32 []; steps in the mean
    bad: Any  # int32 []; bad steps in a row, up to here

    @classmethod
    def start(cls) -> "Typical":
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def judge(
    typical: Typical,
    loss: Float[Array, ""],
    norms: Float[Array, " norms"],
    config: DivergenceConfig,
) -> tuple[Int[Array, ""], Typical]:
    """A step's `Trouble`, and what the next one is judged by.

    Args:
        typical: from the steps before.
        loss: of this step.
        norms: of its gradients and of its update; only whether they are finite counts.
        config: how large a loss is a spike, and how far back the mean looks.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norms).all()
    trouble = jnp.where(finite, Trouble.NONE, Trouble.NOT_FINITE).astype(jnp.int32)
    if config.spike:
        known = typical.good >= config.window
        spike = finite & known & (loss > config.spike * typical.loss)
        trouble = jnp.where(spike, Trouble.SPIKE, trouble).astype(jnp.int32)
    good = trouble == Trouble.NONE
    seen = jnp.minimum(typical.good + 1, config.window).astype(jnp.float32)
    return trouble, Typical(
        loss=jnp.where(good, typical.loss + (loss - typical.loss) / seen, typical.loss),
        good=typical.good + good,
        bad=jnp.where(good, 0, typical.bad + 1),
    )


@dataclass(frozen=True)
class Passed:
    """Batches that this run leaves out for ever, and how often it went back to do so."""

    over: tuple[int, ...] = ()  # their places in the order of all batches, rising
    times: int = 0


class GoBack(Exception):
    """Training is to go on from the newest checkpoint, without some batches."""

    def __init__(self, step: int, reason: str, batches: list[int], examples: list[int]):
        super().__init__(reason)
        self.step, self.reason, self.batches, self.examples = step, reason, batches, examples

    def noted(self, passed: "Passed") -> dict[str, Any]:
        """What `metrics.jsonl` says of it."""
        return {
            "from": self.step,
            "reason": self.reason,
            "examples": self.examples,
            "passed_over": [*passed.over],
        }


class Watch:
    """Sees to each step's trouble, one step late, as `Metrics` writes its numbers."""

    def __init__(
        self,
        config: DivergenceConfig,
        metrics: Metrics,
        batches: Batches,
        passed: Passed,
        has_checkpoints: Callable[[], bool],
    ):
        self._config, self._metrics, self._batches = config, metrics, batches
        self._passed, self._has_checkpoints = passed, has_checkpoints
        self._pending: tuple[int, Any, Any] | None = None

    def step(self, step: int, trouble: Int[Array, ""], in_a_row: Int[Array, ""]) -> None:
        """Takes a step's judgement, and acts on that of the step before; see `settle`."""
        self.settle()
        self._pending = (step, trouble, in_a_row)

    def settle(self) -> None:
        """Acts on what is queued; to be called before anything is saved or evaluated.

        Raises:
            GoBack: that is what the configuration asks for.
            UserError: training stops here.
        """
        if self._pending is None:
            return
        step, trouble, in_a_row = self._pending
        self._pending = None
        if trouble := Trouble(int(np.asarray(trouble))):
            self._act(step, REASONS[trouble], int(np.asarray(in_a_row)))

    def _act(self, step: int, reason: str, in_a_row: int) -> None:
        config, at_most = self._config, self._config.at_most
        first = step if config.action != "go_back" else max(step - config.pass_over + 1, 1)
        steps = range(first, step + 1)
        batches = [self._batches.position(step - 1) for step in steps]
        examples = [int(i) for step in steps for i in self._batches.examples(step - 1)][:SHOWN]
        went_back = config.action == "go_back" and self._passed.times < at_most
        skipped = config.action == "skip" and in_a_row <= at_most
        if went_back:
            raise GoBack(step, reason, batches, examples)
        event = "skipped" if skipped else "diverged"
        self._metrics.event(step, event, reason=reason, batches=batches, examples=examples)
        self._metrics.print(f"step {step:,} {event}: {reason}; its examples are in metrics.jsonl")
        if not skipped:
            hint = {
                "stop": "divergence.action=skip or go_back would go on",
                "skip": f"more than divergence.at_most = {at_most} updates in a row were left out",
                "go_back": f"it has gone back divergence.at_most = {at_most} times",
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


def pass_over(passed: Passed, back: GoBack, first: int) -> Passed:
    """With the batches that made a run go back, but for those before place `first`: the state
    that it goes back to has learned from these already."""
    more = [batch for batch in back.batches if batch >= first]
    return Passed(tuple(sorted({*passed.over, *more})), passed.times + 1)
