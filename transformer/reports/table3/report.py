"""The table written up: report.md with its picture, report.html, and report.json."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from transformer import files
from transformer.reports import document
from transformer.reports.document import Block, Heading, Paragraph, Picture, Table
from transformer.reports.folder import made, said
from transformer.reports.runs import Run
from transformer.reports.statistics import Pooled, holm
from transformer.run_directory import differences, value_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "base"
LEVEL = 0.05  # of the family of tests
PAPER_TOKENS = 100_000 * 25_000  # target tokens, base


@dataclass(frozen=True)
class Printed:
    """What the paper prints in a row: on newstest2013, without averaging of checkpoints."""

    perplexity: float  # a word-piece
    bleu: float
    millions: int | None  # parameters


@dataclass(frozen=True)
class Measure:
    """One column of results, and whether its differences from base are more than chance."""

    values: dict[str, list[float]]  # by row, one a seed
    pooled: Pooled
    p_values: dict[str, float]  # Holm's, of all rows but base

    @classmethod
    def of(cls, values: dict[str, list[float]]) -> "Measure":
        pooled = Pooled.of(values.values())
        tests = {
            name: pooled.p_value(mine, values[BASE])
            for name, mine in values.items()
            if name != BASE
        }
        return cls(values, pooled, holm(tests))

    def mean(self, name: str, digits: int) -> str:
        return self.pooled.mean(self.values[name]).text(digits)

    def difference(self, name: str, digits: int) -> str:
        """From base; bold where it stands Holm's test."""
        if name == BASE:
            return ""
        text = self.pooled.difference(self.values[name], self.values[BASE]).text(
            digits, signed=True
        )
        return f"**{text}**" if self.p_values[name] < LEVEL else text

    def shift(self, name: str) -> float:
        mean = lambda which: sum(self.values[which]) / len(self.values[which])  # noqa: E731
        return mean(name) - mean(BASE)


def write_report(printed: Mapping[str, Printed], runs: Sequence[Run], workdir: Path) -> list[Path]:
    """Writes it; the paths of its three files."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in printed}
    for run in runs:
        if (result := run.result()) is not None:
            results[run.name].append(result)
    entropy, bleu = (
        Measure.of({name: [found[key] for found in results[name]] for name in printed})
        for key in ("nll", "bleu")
    )
    by_command = made()
    blocks = [
        *_head(by_command, runs, results),
        *_table(printed, results, entropy, bleu, runs),
        *_beside(printed, entropy),
    ]
    path = workdir / "report.json"
    rows = {
        name: {
            "printed": dataclasses.asdict(printed[name]),
            "results": results[name],
            "p_values": {"nll": entropy.p_values.get(name), "bleu": bleu.p_values.get(name)},
        }
        for name in printed
    }
    files.write_json(path, {"made": by_command, "rows": rows})
    return [*document.write(workdir, "report", blocks), path]


def _head(
    by_command: dict[str, Any], runs: Sequence[Run], results: Mapping[str, list[dict[str, Any]]]
) -> Iterator[Block]:
    first, config = results[BASE][0], runs[0].config
    seconds = sum(found["seconds"] for row in results.values() for found in row)
    seeds = sorted({run.seed for run in runs})
    yield Heading("AIAYN's Table 3, again", 1)
    yield Paragraph(
        f"{said(by_command)}. {len(runs)} trainings of {seconds / 60.0:.0f} minutes in all, seeds "
        f"{', '.join(map(str, seeds))}. Base here: width {config.model.d_model}, "
        f"{first['parameters']:,} parameters, {first['steps']:,} updates, {first['tokens']:,} "
        "target tokens."
    )
    yield Paragraph(_far_from_convergence(first))
    yield Paragraph(
        "Development set, single checkpoints. Brackets are 95 % intervals with one variance for "
        "all rows, pooled over them: each has too few seeds for one of its own. A difference from "
        f"base is bold where it stands Holm's correction over the rows at {LEVEL:.0%}: whatever is "
        "not bold may be chance."
    )


def _far_from_convergence(base: Mapping[str, Any]) -> str:
    """By how much base was still learning."""
    share = base["tokens"] / PAPER_TOKENS
    said = (
        f"How far that is from convergence: {base['tokens']:,} target tokens are {share:.1e} of "
        "the paper's 100,000 updates of 25,000"
    )
    late = [nll for step, nll in base["curve"] if step >= 0.75 * base["steps"]]
    if len(late) < 2:
        return said + "."
    return (
        f"{said}; in the last quarter of its training (seed 0) base's cross-entropy on the "
        f"development set went from {late[0]:.3f} to {late[-1]:.3f} nats a piece."
    )


def _differs(runs: Sequence[Run]) -> dict[str, str]:
    """Of each row, the keys that are not base's, with their values."""
    configs = {run.name: run.config.as_dict() for run in runs}
    found = {}
    for name, config in configs.items():
        keys = [k for k in differences(config, configs[BASE]) if not k.startswith("optimizer.")]
        short = (f"{key.rpartition('.')[2]} {value_at(config, key)}" for key in keys)
        found[name] = ", ".join(short)
    return found


def _table(
    printed: Mapping[str, Printed],
    results: Mapping[str, list[dict[str, Any]]],
    entropy: Measure,
    bleu: Measure,
    runs: Sequence[Run],
) -> Iterator[Block]:
    header = ("row", "differs from base", "cross-entropy, nats", "less base", "paper's")
    header += ("perplexity", "paper's", "BLEU", "less base", "BLEU, paper's", "less base, paper's")
    header += ("parameters", "paper's, 10⁶", "updates", "seeds", "minutes")
    rows, differs = [], _differs(runs)
    for name, paper in printed.items():
        found, of_base = results[name], printed[BASE]
        shift = math.log(paper.perplexity / of_base.perplexity)
        rows.append(
            (
                name,
                differs[name],
                entropy.mean(name, 3),
                entropy.difference(name, 3),
                "" if name == BASE else f"{shift:+.3f}",
                f"{math.exp(sum(entropy.values[name]) / len(found)):.2f}",
                f"{paper.perplexity:.2f}",
                bleu.mean(name, 1),
                bleu.difference(name, 1),
                f"{paper.bleu:.1f}",
                "" if name == BASE else f"{paper.bleu - of_base.bleu:+.1f}",
                f"{found[0]['parameters']:,}",
                str(paper.millions or ""),
                f"{found[0]['steps']:,}",
                str(len(found)),
                f"{sum(result['seconds'] for result in found) / 60.0 / len(found):.1f}",
            )
        )
    yield Table(header, rows, texts=("differs from base",))
    sizes = {run.name: run.config.model.vocab_size for run in runs}
    if others := [name for name, size in sizes.items() if size != sizes[BASE]]:
        yield Paragraph(
            f"{', '.join(others)}: another vocabulary than base's, so its cross-entropy, of other "
            "pieces, does not compare with base's."
        )
    signature = results[BASE][0]["bleu_signature"]
    yield Paragraph(
        "Cross-entropy is a word-piece's, ln of the perplexity (the paper's differences are those "
        f"of its printed perplexities). BLEU here: `{signature}`; the paper's is tokenised, on "
        "newstest2013. Neither perplexity nor BLEU compares across corpora: differences do, if "
        "anything."
    )


def _beside(printed: Mapping[str, Printed], entropy: Measure) -> Iterator[Block]:
    names = [name for name in printed if name != BASE]
    theirs = [math.log(printed[name].perplexity / printed[BASE].perplexity) for name in names]
    ours = [entropy.shift(name) for name in names]
    yield Heading("Beside the paper")
    yield Picture("differences", _figure(names, theirs, ours), "Our differences and the paper's")
    if len(names) > 2:
        rank: Any = stats.spearmanr(theirs, ours)
        yield Paragraph(
            f"Rank correlation of the {len(names)} differences from base in cross-entropy, ours "
            f"and the paper's: {rank.statistic:+.2f} (Spearman; p = {rank.pvalue:.2g})."
        )
    stands = [name for name in names if entropy.p_values[name] < LEVEL]
    agree = [n for n in stands if entropy.shift(n) * theirs[names.index(n)] > 0.0]
    against = [n for n in stands if entropy.shift(n) * theirs[names.index(n)] < 0.0]
    yield Paragraph(
        f"Of {len(names)} rows, {len(stands)} differ from base by more than chance"
        + (f" ({', '.join(stands)})" if stands else "")
        + f"; {len(agree)} of these in the paper's direction"
        + (f", {len(against)} against it ({', '.join(against)})" if against else "")
        + "."
    )


def _figure(names: Sequence[str], theirs: Sequence[float], ours: Sequence[float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 5.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    axes.axvline(0.0, color="#999999", linewidth=0.8)
    axes.plot(theirs, ours, "o", color="#1f77b4", markersize=4)
    for name, x, y in zip(names, theirs, ours, strict=True):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=8)
    axes.set(
        title="cross-entropy less base's, nats a piece",
        xlabel="the paper, ln of perplexities",
        ylabel="here",
    )
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
