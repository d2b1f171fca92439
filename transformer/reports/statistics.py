"""Means over seeds and differences between them, each with its 95 % confidence interval."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Pooled:
    """One variance for all groups, as two seeds of each say little by themselves.

    It takes the groups to spread alike: then it has the degrees of freedom of all of them.
    """

    variance: float
    freedom: int

    @classmethod
    def of(cls, groups: Iterable[Sequence[float]]) -> "Pooled":
        """The mean square within groups; two values at least in one of them."""
        groups = [group for group in groups if len(group) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups)
        return cls(squares / freedom, freedom)

    def mean(self, values: Sequence[float]) -> Estimate:
        """The interval of a group's mean; one value at least."""
        return _estimate(statistics.mean(values), self.variance / len(values), self.freedom)

    def difference(self, values: Sequence[float], others: Sequence[float]) -> Estimate:
        """The interval of the difference of two groups' means."""
        value = statistics.mean(values) - statistics.mean(others)
        return _estimate(value, self._of_difference(values, others), self.freedom)

    def p_value(self, values: Sequence[float], others: Sequence[float]) -> float:
        """The p-value of the two-sided t test that two groups have the same mean."""
        value = statistics.mean(values) - statistics.mean(others)
        deviation = math.sqrt(self._of_difference(values, others))
        if deviation == 0.0:
            return float(value == 0.0)
        return float(2.0 * stats.t.sf(abs(value) / deviation, self.freedom))

    def _of_difference(self, values: Sequence[float], others: Sequence[float]) -> float:
        return self.variance * (1.0 / len(values) + 1.0 / len(others))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values for all tests together: the chance of one false alarm among them (Holm 1979)."""
    adjusted, highest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


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
