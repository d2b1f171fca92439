"""What the host carries from step to step, beside the state on the devices."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np

from transformer.config import TrainingConfig
from transformer.errors import UserError
from transformer.training.divergence import SkippedBatches
from transformer.training.early_stopping import EarlyStopping


@dataclass(frozen=True)
class HostState:
    """What a checkpoint's meta holds, as JSON.

    Attributes:
        early_stopping: the best evaluation so far.
        skipped: batches that the run leaves out.
        evaluated: False where a signal stopped the evaluation that was due at this step.
        seconds: trained for, over all the run's processes.
        metrics_lines: of metrics.jsonl up to this step.
    """

    early_stopping: EarlyStopping = dataclasses.field(default_factory=EarlyStopping)
    skipped: SkippedBatches = dataclasses.field(default_factory=SkippedBatches)
    evaluated: bool = True
    seconds: float = 0.0
    metrics_lines: int = 0

    def as_meta(self, step: int) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        return {"step": step, "clock": {"seconds": content.pop("seconds")}, **content}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Self:
        """Raises UserError where the meta is another version's."""
        try:
            skipped, stopping = meta.get("skipped"), meta.get("early_stopping")
            if skipped is None:  # what it was called before
                passed = meta["passed"]
                skipped = {"batches": passed["over"], "rollbacks": passed["times"]}
            return cls(
                EarlyStopping(**(meta["stopping"] if stopping is None else stopping)),
                SkippedBatches(tuple(skipped["batches"]), skipped["rollbacks"]),
                meta["evaluated"],
                meta["clock"]["seconds"],
                meta.get("metrics_lines", 0),  # which older ones do not say
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint at step {meta['step']} was written by another version of this "
                f"package ({error!r}): go on with that one, or take another --workdir"
            ) from error


class Clock:
    """Seconds that a run has been trained for, over all its processes."""

    def __init__(self, before: float):
        self.before = before  # this process, as the checkpoint has it
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._began

    def is_over(self, training: TrainingConfig) -> bool:
        """Whether training.minutes are over, by the clock of process 0; all must ask at once."""
        if not training.minutes:
            return False
        over = self.seconds > 60.0 * training.minutes
        if jax.process_count() == 1:
            return over
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(np.asarray(over)))
