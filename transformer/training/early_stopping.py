"""Early stopping: what a run remembers of its evaluations, and when it has waited long enough."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EarlyStopping:
    """The best evaluation so far, and how many came after it."""

    best: float | None = None
    best_step: int = 0
    since_best: int = 0  # evaluations without a better one

    def after(self, value: float, step: int, *, lower_is_better: bool) -> "EarlyStopping":
        """Returns the state after an evaluation; a value that is not finite is never the best."""
        better = self.best is None or (value < self.best if lower_is_better else value > self.best)
        if better and math.isfinite(value):
            return EarlyStopping(value, step, 0)
        return dataclasses.replace(self, since_best=self.since_best + 1)

    def exhausted(self, patience: int) -> bool:
        """Whether that many evaluations passed without a better one; 0 never stops."""
        return 0 < patience <= self.since_best
