"""What is told of a run before it trains: a rate that is 0 too early, an epoch of few batches."""

import jax
import numpy as np
import optax

from transformer.config import Config

FEW = 50  # batches of an epoch
WINDOW = 65_536  # updates whose rate is computed at once
NEVER_ZERO = ("rsqrt",)  # schedules that need no look, nor a program for it


def warnings(
    config: Config, schedule: optax.Schedule, batches_per_epoch: int, step: int
) -> list[str]:
    """A line about each thing that is likely not what was meant.

    Args:
        config: of the run.
        schedule: the learning rate of update 0, 1, 2 ...
        batches_per_epoch: of the training set.
        step: that it begins at, or goes on from.
    """
    told, steps = [], config.training.steps
    zero = None if config.optimizer.schedule in NEVER_ZERO else idle_from(schedule, step, steps)
    if zero is not None:
        options = config.optimizer.schedule_options.items()
        lengths = [f"{key} = {value}" for key, value in options if key.endswith("steps")]
        named = f" ({', '.join(lengths)})" if lengths else ""
        told.append(
            f"warning: the learning rate is 0 from step {zero + 1:,} to the last, {steps:,}, which "
            f"teach nothing: optimizer.schedule_options{named} end the schedule there; set "
            f"training.steps={zero}, or begin another run with a longer schedule"
        )
    if batches_per_epoch < FEW:
        told.append(
            f"warning: an epoch has {batches_per_epoch} batches: for so small a "
            f"corpus data.tokens_per_batch={config.data.tokens_per_batch} is large; a smaller one "
            "gives more updates in the same time"
        )
    return told


def idle_from(schedule: optax.Schedule, step: int, steps: int) -> int | None:
    """The first of the updates `step` ... `steps - 1` that has a rate of 0, as all behind it have.

    None where only the last has, or none: a schedule may come to 0 at its end.
    """
    rates = jax.jit(jax.vmap(schedule))
    steps = min(steps, 2**31)
    first = end = steps
    while first == end > step:
        counts = np.maximum(np.arange(end - WINDOW, end), step)
        moving = np.flatnonzero(np.asarray(rates(counts.astype(np.int32))))
        end -= WINDOW
        first = max(end + int(moving[-1]) + 1 if len(moving) else end, step)
    return first if steps - first > 1 else None
