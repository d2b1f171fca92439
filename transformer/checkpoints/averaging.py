"""A run's parameters for those who do not train it: checkpoint averaging, the last, the best."""

import contextlib
import time

from transformer.checkpoints.checkpoints import Checkpoints, Unusable, open_checkpoints
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.models.parameters import Params

LOOKS = 5  # times that a reader looks for checkpoints that a trainer retires meanwhile


def load_params(experiment: Experiment, which: str = "average") -> tuple[Params, str]:
    """Loads a run's parameters for evaluation; returns them and a line that says which they are.

    Args:
        experiment: a run's, `Experiment.open(workdir)`.
        which: "average" (of the last `checkpoints.average`), "last", "best", or a step's number.
            Where training.ema_decay keeps a running average, it is what is read, and "average" is
            "last".

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    for left in reversed(range(LOOKS)):
        try:
            with contextlib.closing(open_checkpoints(experiment, read_only=True)) as checkpoints:
                return _chosen_parameters(experiment, checkpoints, which)
        except _Retired:  # a trainer deletes old ones, and has newer ones
            if not left:
                raise
    raise AssertionError("the loop returns or raises")


class _Retired(UserError):
    """A checkpoint went while it was read; there are others."""


def _chosen_parameters(
    experiment: Experiment, checkpoints: Checkpoints, which: str
) -> tuple[Params, str]:
    config = experiment.config
    steps, best = checkpoints.steps, checkpoints.best_step
    if not steps:
        raise UserError(f"{experiment.workdir} has no checkpoint yet: train it first")
    running = config.training.ema_decay > 0.0
    recent = checkpoints.recent(1 if running else config.checkpoints.average)
    choices = {"average": recent, "last": steps[-1:], "best": [best] if best else []}
    chosen = choices.get(which) or [step for step in steps if str(step) == which]
    if not chosen:
        raise UserError(
            f"{experiment.workdir} has no checkpoint {which!r}: it has average, last"
            f"{', best' if best else ''} and steps {', '.join(map(str, steps))}"
        )
    try:
        got = checkpoints.params(experiment.abstract_params, chosen, "ema" if running else "params")
    except Unusable as error:
        whole = ", ".join(str(step) for step in steps if f"/{step} " not in str(error))
        time.sleep(0.5)  # what is being deleted goes file by file
        kind = UserError if checkpoints.are_there(steps) else _Retired
        instead = f"take another, --checkpoint=STEP of {whole}" if whole else "train on, or anew"
        raise kind(f"{error}: {instead}") from error
    if len(chosen) == 1:
        return got, f"the {'running average' if running else 'checkpoint'} at step {chosen[0]:,}"
    return got, f"the mean of {len(chosen)} checkpoints, steps {chosen[0]:,} to {chosen[-1]:,}"
