"""A paper's table of models: parameters and training FLOPs, ours beside what it printed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformer.config import Config
from transformer.config.experiment_files import Published
from transformer.models import build_model
from transformer.models.parameters import Count
from transformer.models.parameters import count as count_parameters


@dataclass(frozen=True)
class Row:
    """One of a table's models, beside what a paper printed of it.

    Attributes:
        training_flops: of the whole run: 6 for each parameter and target token (Kaplan et al. 2020,
            §2.1), 2 forward and 4 backward.
        published: None where no paper has it.
    """

    name: str
    count: Count
    training_flops: float
    published: Published | None

    @classmethod
    def of(cls, name: str, config: Config, length: int, published: Published | None) -> "Row":
        counted = count_parameters(build_model(config.model), length)
        tokens = config.training.steps * config.data.tokens_per_batch
        return cls(name, counted, 6.0 * counted.total * tokens, published)

    def as_dict(self) -> dict[str, Any]:
        return {
            "row": self.name,
            **self.count.as_dict(),
            "training_flops": self.training_flops,
            "published": self.published and dataclasses.asdict(self.published),
        }


def table(rows: Sequence[Row]) -> str:
    """Rows for people: layers, total, the paper's millions, training FLOPs and the paper's."""
    form = f"{{:<{max(5, *(len(row.name) for row in rows)) + 1}}}{{:>14}}{{:>14}}" + 4 * "{:>10}"
    names = ("row", "layers", "total", "millions", "paper", "FLOPs", "paper")
    lines = [form.format(*names)]
    for row in rows:
        paper, total = row.published, row.count.total
        flops = paper and paper.training_flops
        cells = (f"{row.count.layers:,}", f"{total:,}", f"{total / 1e6:.1f}")
        cells += ((paper and paper.millions) or "", f"{row.training_flops:.1e}")
        lines.append(form.format(row.name, *cells, f"{flops:.1e}" if flops else ""))
    notes = dict.fromkeys(row.published.note for row in rows if row.published)
    return "\n".join([*lines, *filter(None, notes)])
