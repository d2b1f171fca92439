"""Several experiments side by side: what `transformer compare` trains and measures."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.config.experiment import Config, plain
from transformer.config.fields import Section, checked, choice, positive, require


@dataclass(frozen=True)
class SpeedConfig(Section, section="speed"):
    """How speed is measured."""

    lengths: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """Tokens of source, and of target."""
    tokens: int = positive(4_096)
    """Tokens of a training step, source and target each."""
    rows: int = positive(8)
    """Sentences decoded together."""
    rounds: int = positive(5)
    """Each experiment has a turn in each; medians are reported."""
    longest: float = positive(20.0)
    """Seconds of a training step, beyond which longer ones are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.lengths) > 1
            and all(a < b for a, b in itertools.pairwise(self.lengths))
            and self.lengths[0] >= 16
            and self.lengths[-1] <= self.tokens,
            f"speed.lengths is {self.lengths}; it needs two or more from 16 to speed.tokens = "
            f"{self.tokens}, ascending",
        )


@dataclass(frozen=True)
class ReachConfig(Section, section="reach"):
    """How the reach of gradients is measured."""

    sentences: int = positive(8)
    """Sentences of the longest distance."""
    probes: int = positive(4)
    """Random projections of each sentence's logits."""


def _seeds(key: str, value: tuple[int, ...]) -> None:
    require(
        len(value) >= 2 and len(set(value)) == len(value),
        f"{key} is {value}; an interval needs two or more, each once",
    )


def _length_bins(key: str, value: tuple[int, ...]) -> None:
    require(
        all(a < b for a, b in itertools.pairwise(value)),
        f"{key} is {value}; give the last length of each bin, ascending",
    )


@dataclass(frozen=True)
class ComparisonConfig(Section):
    """Which experiments, under which budget, and what is measured of them."""

    translation: Mapping[str, Config]
    """Experiments by name, all on the same data; a name means the same in all groups."""
    recall: Mapping[str, Mapping[str, Config]]
    """Experiments by task and name."""
    seeds: tuple[int, ...] = checked((0, 1, 2, 3, 4), _seeds)
    """Seeds of each training; intervals are over them, so two at least."""
    reference: str = "transformer"
    """Whose budget the others keep to; named in every group."""
    budget: str = choice("tokens", "parameters", "flops", "minutes")
    """What is the same for all in `translation`: parameters (and batches), flops, minutes, tokens
    (the same batches). What each means: transformer/reports/compare/budgets.py."""
    minutes: float = positive(10.0)
    """Minutes of each training, where that is the budget."""
    sentence_length: int = positive(12)
    """Tokens of the sentences whose FLOPs and speed count."""
    length_bins: tuple[int, ...] = checked((5, 7, 9), _length_bins)
    """Last words of each bin of source lengths; longer is the last."""
    sentences: tuple[tuple[str, str], ...] = (
        ("la casa roja", "the red house"),
        ("los perros negros no duermen en la casa", "the black dogs do not sleep in the house"),
    )
    """Whose alignments are shown, with the translation they are asked for."""
    speed: SpeedConfig = SpeedConfig()
    reach: ReachConfig = ReachConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
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
