"""Means over seeds and differences between them, each with its 95 % confidence interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, and the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, else 0."""
        return (self.low > 0.0) - (self.high < 0.0)

    def text(self, digits: int = 1, *, signed: bool = False) -> str:
        """`12.3 [10.1, 14.5]`; where no value but one was seen, `12.3`."""
        show = f"{{:{'+' if signed else ''}.{digits}f}}".format
        if self.low == self.high:
            return show(self.value)
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"


def mean(values: Sequence[float]) -> Estimate:
    """Student's t interval of a mean.

    Args:
        values: one a seed, two at least.
    """
    value, variance = statistics.mean(values), _of_mean(values)
    return _estimate(value, variance, len(values) - 1)


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Welch's t interval of mean(values) - mean(others): their variances need not be the same.

    Args:
        values: one a seed, two at least.
        others: likewise; as many or not.
    """
    one, two = _of_mean(values), _of_mean(others)
    value = statistics.mean(values) - statistics.mean(others)
    if one + two == 0.0:
        return Estimate(value, value, value)
    # Welch and Satterthwaite's degrees of freedom.
    freedom = (one + two) ** 2 / (one**2 / (len(values) - 1) + two**2 / (len(others) - 1))
    return _estimate(value, one + two, freedom)


def _of_mean(values: Sequence[float]) -> float:
    return statistics.variance(values) / len(values)


def _estimate(value: float, variance: float, freedom: float) -> Estimate:
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, freedom)) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach)
