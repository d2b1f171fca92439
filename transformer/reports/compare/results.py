"""What a comparison has measured, asked for by task, experiment and quantity."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformer.config import ComparisonConfig, Config
from transformer.reports.runs import Run
from transformer.reports.statistics import Estimate, difference, mean

Value = Callable[[Mapping[str, Any]], float]  # of a run's result
Speeds = Mapping[int, Mapping[str, Mapping[str, Any]]]  # by length, then by experiment


@dataclass(frozen=True)
class Results:
    """Every run of a comparison with its result, and the speeds."""

    config: ComparisonConfig
    speeds: Speeds
    runs: list[Run]

    @cached_property
    def _read(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        by_run: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for run in self.runs:
            if (result := run.result()) is not None:
                by_run.setdefault((run.task, run.name), []).append(result)
        return by_run

    def of(self, task: str, name: str) -> list[dict[str, Any]]:
        """Results in the order of the seeds."""
        return self._read[task, name]

    def names(self, task: str) -> list[str]:
        """The reference first."""
        names = dict.fromkeys(run.name for run in self.runs if run.task == task)
        return sorted(names, key=lambda name: (name != self.config.reference, name))

    def values(self, task: str, name: str, value: Value) -> list[float]:
        return [value(result) for result in self.of(task, name)]

    def mean(self, task: str, name: str, value: Value) -> Estimate:
        return mean(self.values(task, name, value))

    def difference(self, task: str, name: str, other: str, value: Value) -> Estimate:
        """The difference of `name` less `other`."""
        return difference(self.values(task, name, value), self.values(task, other, value))

    def experiment(self, task: str, name: str) -> Config:
        return next(run.config for run in self.runs if (run.task, run.name) == (task, name))

    def pairs(self, task: str) -> Iterator[tuple[str, str]]:
        """A recurrent family with attention, and the same one without."""
        plain = {
            self.experiment(task, name).model.family: name
            for name in self.names(task)
            if not attends(self.experiment(task, name))
        }
        for name in self.names(task):
            experiment = self.experiment(task, name)
            family = experiment.model.family
            if family in plain and attends(experiment):
                yield name, plain[family]


def attends(experiment: Config) -> bool:
    """Whether what it writes is written with attention to the source."""
    model = experiment.model
    if model.family in ("transformer", "decoder", "encoder"):
        return model.family != "encoder"  # which attends before it writes
    return model.recurrent.attention != "none"


def exact_match(result: Mapping[str, Any]) -> float:
    """Per cent of the test sentences."""
    return result["exact_match"]


def exact_match_where(key: str, low: int, high: int) -> Value:
    """Per cent of the test sentences whose `lengths` or `distances` lie in [low, high]."""

    def value(result: Mapping[str, Any]) -> float:
        right = [
            correct == "1"
            for number, correct in zip(result[key], result["correct"], strict=True)
            if low <= number <= high
        ]
        return 100.0 * sum(right) / len(right)

    return value


def bins(results: Results) -> list[tuple[int, int]]:
    """Ranges of source lengths in words, first and last, those without a test sentence left out."""
    lengths = results.of("translation", results.config.reference)[0]["lengths"]
    edges = [*results.config.length_bins, max(lengths)]
    ranges, low = [], 1
    for high in edges:
        if any(low <= length <= high for length in lengths):
            ranges.append((low, high))
        low = high + 1
    return ranges
