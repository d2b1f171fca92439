"""The table written up: report.md with its picture, report.html, and report.json."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy import stats

from transformer import files
from transformer.config.experiment_files import Published
from transformer.files import AnyPath
from transformer.reports import document
from transformer.reports.document import Block, Heading, Paragraph, Picture, Table
from transformer.reports.folder import made, said
from transformer.reports.runs import Run, bleu_signatures
from transformer.reports.statistics import Pooled, holm
from transformer.run_directory import differences, value_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05  # of the family of tests
PAPER_TOKENS = 100_000 * 25_000  # target tokens, base


@dataclass(frozen=True)
class Measure:
    """One column of results, and whether differences from the first row are more than chance."""

    values: dict[str, list[float]]  # by row, one a seed
    pooled: Pooled
    p_values: dict[str, float]  # Holm's, of all rows that compare with the first

    @classmethod
    def of(cls, values: dict[str, list[float]], alone: Collection[str] = ()) -> "Measure":
        """Args: values: see above; alone: rows that do not compare with the first."""
        pooled = Pooled.of(values.values())
        first, *others = values
        tests = {
            name: pooled.p_value(values[name], values[first])
            for name in others
            if name not in alone
        }
        return cls(values, pooled, holm(tests))

    @property
    def first(self) -> str:
        """The row that all are compared with."""
        return next(iter(self.values))

    def mean(self, name: str, digits: int) -> str:
        return self.pooled.mean(self.values[name]).text(digits)

    def difference(self, name: str, digits: int) -> str:
        """The difference from the first row, bold where significant by Holm's correction."""
        if name not in self.p_values:
            return ""
        values = self.values[name], self.values[self.first]
        text = self.pooled.difference(*values).text(digits, signed=True)
        return f"**{text}**" if self.stands(name) else text

    def average(self, name: str) -> float:
        return statistics.mean(self.values[name])

    def shift(self, name: str) -> float:
        return self.average(name) - self.average(self.first)

    def stands(self, name: str) -> bool:
        """Whether its difference from the first row is significant by Holm's correction."""
        return self.p_values.get(name, 1.0) < LEVEL


def write_report(
    published: Mapping[str, Published | None], runs: Sequence[Run], workdir: AnyPath
) -> list[AnyPath]:
    """Writes it; the paths of its three files. `published`: by row; None where no paper has it."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in published}
    for run in runs:
        if (result := run.result()) is not None:
            results[run.name].append(result)
    sizes = {run.name: run.config.model.vocab_size for run in runs}
    alone = [name for name, size in sizes.items() if size != sizes[runs[0].name]]
    entropy, bleu = (
        Measure.of({name: [result[key] for result in results[name]] for name in published}, out)
        for key, out in (("nll", alone), ("bleu", ()))
    )
    papers = {name: paper for name, paper in published.items() if paper}
    if runs[0].name not in papers:  # there is nothing of a paper's to compare with
        papers = {}
    by_command = made()
    blocks = [
        *_head(by_command, runs, results, of_paper=bool(papers)),
        *_table(results, entropy, bleu, runs, papers, alone),
        *_findings(entropy),
        *(_beside(papers, entropy) if papers else ()),
    ]
    path = workdir / "report.json"
    rows = {
        name: {
            "published": paper and dataclasses.asdict(paper),
            "results": results[name],
            "p_values": {"nll": entropy.p_values.get(name), "bleu": bleu.p_values.get(name)},
        }
        for name, paper in published.items()
    }
    files.write_json(path, {"made": by_command, "rows": rows})
    return [*document.write(workdir, "report", blocks), path]


def _head(
    by_command: dict[str, Any],
    runs: Sequence[Run],
    results: Mapping[str, list[dict[str, Any]]],
    *,
    of_paper: bool,
) -> Iterator[Block]:
    reference, config = runs[0].name, runs[0].config
    first = results[reference][0]
    seconds = sum(result["seconds"] for row in results.values() for result in row)
    seeds = sorted({run.seed for run in runs})
    yield Heading("AIAYN's Table 3, again" if of_paper else f"Beside {reference}, row by row", 1)
    yield Paragraph(
        f"{said(by_command)}. {len(runs)} trainings of {seconds / 60.0:.0f} minutes in all, seeds "
        f"{', '.join(map(str, seeds))}. Row {reference}: width {config.model.d_model}, "
        f"{first['parameters']:,} parameters, {first['steps']:,} updates, "
        f"{first['target_tokens']:,} target tokens."
    )
    yield Paragraph(_far_from_convergence(reference, first, of_paper=of_paper))
    yield Paragraph(
        "Development set, single checkpoints. Brackets are 95 % intervals with one variance for "
        "all rows, pooled over them: each has too few seeds for one of its own. A difference from "
        f"{reference} is bold where it is significant after Holm's correction over the rows at "
        f"{LEVEL:.0%}: whatever is not bold may be chance."
    )


def _far_from_convergence(reference: str, result: Mapping[str, Any], *, of_paper: bool) -> str:
    """Says by how much the first row was still learning."""
    parts = []
    if of_paper:
        share = result["target_tokens"] / PAPER_TOKENS
        parts.append(
            f"{result['target_tokens']:,} target tokens are {share:.1e} of the paper's 100,000 "
            "updates of 25,000"
        )
    late = [nll for step, nll in result["curve"] if step >= 0.75 * result["steps"]]
    if len(late) > 1:
        parts.append(
            f"in the last quarter of its training (seed 0) {reference}'s cross-entropy on the "
            f"development set went from {late[0]:.3f} to {late[-1]:.3f} nats a piece"
        )
    return f"How far that is from convergence: {'; '.join(parts) or 'not measured'}."


def _differs(runs: Sequence[Run]) -> dict[str, str]:
    """Each row's keys that are not the first row's, with their values."""
    configs, differing = {run.name: run.config.as_dict() for run in runs}, {}
    for name, config in configs.items():
        keys = [
            key
            for key in differences(config, configs[runs[0].name])
            if not key.startswith("optimizer.schedule_options")
        ]
        short = (f"{key.rpartition('.')[2]} {value_at(config, key)}" for key in keys)
        differing[name] = ", ".join(short)
    return differing


def _table(
    results: Mapping[str, list[dict[str, Any]]],
    entropy: Measure,
    bleu: Measure,
    runs: Sequence[Run],
    papers: Mapping[str, Published],
    alone: Sequence[str],
) -> Iterator[Block]:
    first, differs = entropy.first, _differs(runs)

    def of_paper(cell: Callable[[Published], str]) -> Callable[[str], str]:
        return lambda name: cell(papers[name]) if name in papers else ""

    def from_first(cell: Callable[[Published, Published], str]) -> Callable[[str], str]:
        shown = of_paper(lambda paper: cell(paper, papers[first]))
        return lambda name: "" if name == first else shown(name)

    def minutes(name: str) -> str:
        return f"{statistics.mean(result['seconds'] for result in results[name]) / 60.0:.1f}"

    ours, theirs = True, bool(papers)
    columns: list[tuple[bool, str, Callable[[str], str]]] = [
        (ours, "row", str),
        (ours, f"differs from {first}", differs.__getitem__),
        (ours, "cross-entropy, nats", lambda name: entropy.mean(name, 3)),
        (ours, f"less {first}", lambda name: entropy.difference(name, 3)),
        (
            theirs,
            "paper's",
            from_first(lambda a, b: f"{math.log(a.perplexity / b.perplexity):+.3f}"),
        ),
        (ours, "perplexity", lambda name: f"{math.exp(entropy.average(name)):.2f}"),
        (theirs, "paper's", of_paper(lambda paper: f"{paper.perplexity:.2f}")),
        (ours, "BLEU", lambda name: bleu.mean(name, 1)),
        (ours, f"less {first}", lambda name: bleu.difference(name, 1)),
        (theirs, "BLEU, paper's", of_paper(lambda paper: f"{paper.bleu:.1f}")),
        (theirs, f"less {first}, paper's", from_first(lambda a, b: f"{a.bleu - b.bleu:+.1f}")),
        (ours, "parameters", lambda name: f"{results[name][0]['parameters']:,}"),
        (theirs, "paper's, 10⁶", of_paper(lambda paper: str(paper.millions or ""))),
        (ours, "updates", lambda name: f"{results[name][0]['steps']:,}"),
        (ours, "seeds", lambda name: str(len(results[name]))),
        (ours, "minutes", minutes),
    ]
    shown = [(header, cell) for there, header, cell in columns if there]
    yield Table(
        [header for header, _ in shown],
        [[cell(name) for _, cell in shown] for name in results],
        texts=(f"differs from {first}",),
    )
    if alone:
        yield Paragraph(
            f"{', '.join(alone)}: another vocabulary than {first}'s, so its cross-entropy, of "
            "other pieces, does not compare."
        )
    signatures = bleu_signatures(results)
    text = f"Cross-entropy is a word-piece's, ln of the perplexity. BLEU: {signatures}"
    if papers:
        text += (
            "; the paper's is tokenised, on newstest2013, and its differences of cross-entropy are "
            "those of its printed perplexities. Neither perplexity nor BLEU compares across "
            "corpora: differences do, if anything"
        )
    yield Paragraph(f"{text}.")


def _findings(entropy: Measure) -> Iterator[Block]:
    stand = [f"{n} {entropy.difference(n, 3)}" for n in entropy.p_values if entropy.stands(n)]
    yield Paragraph(
        f"Of {len(entropy.p_values)} rows, {len(stand)} differ from {entropy.first} in "
        "cross-entropy by more than chance" + (f": {', '.join(stand)}" if stand else "") + "."
    )


def _beside(papers: Mapping[str, Published], entropy: Measure) -> Iterator[Block]:
    base, names = entropy.first, [name for name in entropy.p_values if name in papers]
    theirs = {n: math.log(papers[n].perplexity / papers[base].perplexity) for n in names}
    ours = {n: entropy.shift(n) for n in names}
    yield Heading("Beside the paper")
    yield Picture("differences", _figure(theirs, ours), "Our differences and the paper's")
    if len(names) > 2:
        rank: Any = stats.spearmanr(list(theirs.values()), list(ours.values()))
        yield Paragraph(
            f"Rank correlation of the {len(names)} differences from {base} in cross-entropy, ours "
            f"and the paper's: {rank.statistic:+.2f} (Spearman; p = {rank.pvalue:.2g})."
        )
    stand = [n for n in names if entropy.stands(n)]
    agree = [n for n in stand if ours[n] * theirs[n] > 0.0]
    against = [n for n in stand if ours[n] * theirs[n] < 0.0]
    yield Paragraph(
        f"Of the {len(stand)} rows that differ by more than chance, {len(agree)} do so in the "
        "paper's direction"
        + (f", {len(against)} against it ({', '.join(against)})" if against else "")
        + "."
    )


def _figure(theirs: Mapping[str, float], ours: Mapping[str, float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 5.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    axes.axvline(0.0, color="#999999", linewidth=0.8)
    axes.plot(list(theirs.values()), list(ours.values()), "o", color="#1f77b4", markersize=4)
    for name, x in theirs.items():
        axes.annotate(name, (x, ours[name]), textcoords="offset points", xytext=(4, 3), fontsize=8)
    axes.set(
        title="cross-entropy less base's, nats a piece",
        xlabel="the paper, ln of perplexities",
        ylabel="here",
    )
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
