"""Several experiments side by side: what `transformer compare` trains and measures."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.config.checks import one_of, positive, require
from transformer.config.resolved import Config, plain

BUDGETS = ("parameters", "flops", "minutes", "tokens")


@dataclass(frozen=True)
class SpeedConfig:
    lengths: tuple[int, ...]
    tokens: int
    rows: int
    rounds: int
    longest: float

    def __post_init__(self) -> None:
        positive("speed", self, "tokens", "rows", "rounds", "longest")
        require(
            len(self.lengths) > 1
            and all(a < b for a, b in itertools.pairwise(self.lengths))
            and self.lengths[0] >= 16
            and self.lengths[-1] <= self.tokens,
            f"speed.lengths is {self.lengths}; it needs two or more from 16 to speed.tokens = "
            f"{self.tokens}, ascending",
        )


@dataclass(frozen=True)
class ReachConfig:
    sentences: int
    probes: int

    def __post_init__(self) -> None:
        positive("reach", self, "sentences", "probes")


@dataclass(frozen=True)
class ComparisonConfig:
    """Which experiments, under which budget, and what is measured of them."""

    seeds: tuple[int, ...]
    reference: str
    budget: str
    minutes: float
    sentence_length: int
    length_bins: tuple[int, ...]
    sentences: tuple[tuple[str, str], ...]
    translation: Mapping[str, Config]
    recall: Mapping[str, Mapping[str, Config]]
    speed: SpeedConfig
    reach: ReachConfig

    def __post_init__(self) -> None:
        require(
            len(self.seeds) >= 2 and len(set(self.seeds)) == len(self.seeds),
            f"seeds is {self.seeds}; an interval needs two or more, each once",
        )
        one_of("budget", self.budget, BUDGETS)
        positive("comparison", self, "minutes", "sentence_length")
        require(
            all(a < b for a, b in itertools.pairwise(self.length_bins)),
            f"length_bins is {self.length_bins}; give the last length of each bin, ascending",
        )
        groups = {"translation": self.translation}
        groups |= {f"recall.{task}": group for task, group in self.recall.items()}
        for where, group in groups.items():
            _alike(where, group, self.reference)
        for task, group in self.recall.items():
            data = group[self.reference].data
            require(
                data.source == "recall",
                f"recall.{task}: data.source is {data.source!r}; take 'recall'",
            )
            distances = data.recall.distances
            require(
                min(data.recall.dev_size, data.recall.test_size) >= len(distances)
                and min(distances) > 0,
                f"recall.{task}: data.recall.dev_size and test_size must have a sentence of each "
                f"of the distances {distances}, and these must be above 0",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, JSON-ready, as `from_dict` reads them."""
        result = plain(self)
        for group in (result["translation"], *result["recall"].values()):
            for experiment in group.values():
                del experiment["model"]["vocab_size"]
        return result


def _alike(where: str, group: Mapping[str, Config], reference: str) -> None:
    require(
        reference in group,
        f"{where} has no experiment {reference!r}, which `reference` names: it has "
        f"{', '.join(group) or 'none'}",
    )
    for name, config in group.items():
        require(
            config.data == group[reference].data,
            f"{where}.{name}.data differs from {where}.{reference}.data: only models on the same "
            "text, in the same batches, can be compared",
        )
        require(
            not config.distributed.enabled,
            f"{where}.{name}.distributed.enabled is set: a comparison runs in one process",
        )
