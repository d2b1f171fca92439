"""The comparison written up: report.md with its pictures, report.html, and report.json."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from transformer import files
from transformer.checkpoints import load_params
from transformer.config import ComparisonConfig
from transformer.decoding import open_translator
from transformer.experiment import Experiment
from transformer.files import AnyPath
from transformer.inspection import SentenceInspector, WordMap
from transformer.models import build_model
from transformer.reports import document
from transformer.reports.compare import figures
from transformer.reports.compare.findings import Finding, findings
from transformer.reports.compare.reach import SMALLEST, faded
from transformer.reports.compare.results import (
    Results,
    Speeds,
    attends,
    bins,
    exact_match,
    exact_match_where,
)
from transformer.reports.document import Block, Heading, Paragraph, Picture, Table
from transformer.reports.folder import made, said
from transformer.reports.runs import Run, bleu_signatures

T = "translation"
BUDGETS = {
    "parameters": "each as many parameters as {0}, and the same batches",
    "flops": "each as many FLOPs of training as {0}",
    "minutes": "each {1:g} minutes of training on this machine",
    "tokens": "each the same batches as {0}",
}


def write_report(
    config: ComparisonConfig, workdir: AnyPath, speeds: Speeds, runs: list[Run]
) -> list[AnyPath]:
    """Writes it; the paths of its three files."""
    results = Results(config, speeds, runs)
    by_command = made()
    claims = findings(results)
    maps = _alignments(results)
    blocks = [
        *_head(results, by_command, claims),
        *_quality(results),
        *_speed(results),
        *(block for task in config.recall for block in _recall(results, f"recall.{task}", task)),
        *_attention(results),
        *_aligned(results, maps),
    ]
    path = workdir / "report.json"
    content = {
        "made": by_command,
        "config": config.as_dict(),
        "findings": [dataclasses.asdict(finding) for finding in claims],
        "speeds": speeds,
        "results": {
            task: {name: results.of(task, name) for name in results.names(task)}
            for task in dict.fromkeys(run.task for run in runs)
        },
    }
    files.write_json(path, content)
    return [*document.write(workdir, "report", blocks), path]


def _head(results: Results, by_command: dict[str, Any], findings: list[Finding]) -> Iterator[Block]:
    config = results.config
    budget = BUDGETS[config.budget].format(config.reference, config.minutes)
    minutes = sum(
        result["seconds"] / 60.0
        for task, name in dict.fromkeys((run.task, run.name) for run in results.runs)
        for result in results.of(task, name)
    )
    yield Heading("Families compared", 1)
    yield Paragraph(
        f"{said(by_command)}. {len(results.runs)} trainings of {minutes:.0f} minutes in "
        f"all, seeds {', '.join(map(str, config.seeds))}; budget: {budget}."
    )
    yield Paragraph(
        "Brackets are 95 % intervals over seeds: Student's t for a mean, Welch's for a difference. "
        "They say how much another seed would move a number, not what another corpus, size or "
        "budget would. Times are medians of rounds in which all take turns."
    )
    yield Heading("What was found")
    yield Paragraph(
        "A claim is borne out where the whole interval lies on its side of zero, contradicted "
        "where it lies on the other, and undecided where it holds zero: of claims that are not "
        "true, one in forty is called borne out by chance. Of speed it is the rounds that must "
        "all agree. Where every seed gave the same there is no bracket."
    )
    rows = []
    for claim in dict.fromkeys((f.claim, f.source) for f in findings):
        of_claim = [(f.measured, f.verdict) for f in findings if (f.claim, f.source) == claim]
        rows.append((*claim, *of_claim[0]))
        rows += [("", "", *more) for more in of_claim[1:]]
    texts = ("made by", "measured", "here")
    yield Table(("claim", *texts), rows, texts)


def _quality(results: Results) -> Iterator[Block]:
    config, rows = results.config, []
    for name in results.names(T):
        first, experiment = results.of(T, name)[0], results.experiment(T, name)
        flops = type(build_model(experiment.model)).flops_per_token(
            experiment.model, config.sentence_length
        )
        less = results.difference(T, name, config.reference, exact_match).text(signed=True)
        rows.append(
            (
                name,
                f"{first['parameters']:,}",
                f"{results.mean(T, name, lambda r: r['steps']).value:,.0f}",
                f"{results.mean(T, name, lambda r: r['target_tokens']).value:,.0f}",
                f"{3.0 * flops * first['target_tokens']:.2e}",
                results.mean(T, name, lambda r: r["seconds"] / 60.0).text(),
                results.mean(T, name, exact_match).text(),
                less if name != config.reference else "",
                results.mean(T, name, lambda r: r["bleu"]).text(),
                results.mean(T, name, lambda r: r["perplexity"]).text(2),
            )
        )
    header = ("", "parameters", "updates", "target tokens", "training FLOPs", "minutes")
    header += ("exact match, %", f"less {config.reference}", "BLEU", "perplexity")
    yield Heading("1. Quality at a matched budget")
    yield Table(header, rows)
    signatures = bleu_signatures({name: results.of(T, name) for name in results.names(T)})
    yield Paragraph(
        f"{results.of(T, config.reference)[0]['sentences']:,} test sentences; BLEU {signatures}; "
        f"FLOPs by the formula, at {config.sentence_length} tokens a sentence. Minutes hold "
        f"evaluation and checkpoints. {_trained_alike(results)}"
    )


def _trained_alike(results: Results) -> str:
    """What of the training was the same for all, and what was not."""
    experiments = {name: results.experiment(T, name) for name in results.names(T)}
    rates = {
        (c.optimizer.schedule, *sorted(c.optimizer.schedule_options.items()))
        for c in experiments.values()
    }
    clips: dict[float, list[str]] = {}
    for name, c in experiments.items():
        clips.setdefault(c.training.clip_norm, []).append(name)
    gradients = [
        f"{'not clipped' if not norm else f'clipped at {norm:g}'}: {', '.join(names)}"
        for norm, names in clips.items()
    ]
    alike = "one learning rate for all, tuned for none" if len(rates) == 1 else "rates of their own"
    return f"Trained with {alike}; gradients {'; '.join(gradients)}."


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(map(str, numbers))


def _speed(results: Results) -> Iterator[Block]:
    names, speed = results.names(T), results.config.speed
    yield Heading("2. Speed and parallelism")
    yield Paragraph(
        f"Training steps of {speed.tokens:,} source and as many target tokens at every length; "
        f"{speed.rows} sentences decoded together, greedily, at their end; one device. A training "
        f"step that takes more than {speed.longest:g} seconds is not tried at longer sentences."
    )
    quantities = (
        ("Training, target tokens/s", "train_tokens", "{:,.0f}", max),
        ("Training, seconds a step", "train_seconds", "{:.3f}", min),
        ("Decoding, tokens/s", "decode_tokens", "{:,.0f}", max),
        ("State of a hypothesis, bytes", "state_bytes", "{:,}", min),
        ("Kept of a source sentence, bytes", "memory_bytes", "{:,}", min),
    )
    for title, key, form, best in quantities:
        rows = []
        for length, row in results.speeds.items():
            measured = {name: row[name][key] for name in names if row[name][key] is not None}
            wins = [name for name in measured if measured[name] == best(measured.values())]
            cells = [form.format(measured[n]) if n in measured else "—" for n in names]
            rows.append((str(length), *cells, ", ".join(wins)))
        yield Heading(title, 3)
        yield Table(("length", *names, "best"), rows, texts=("best",))
    yield Picture("speed", figures.speed(results), "Time and memory against length")


def _recall(results: Results, task: str, short: str) -> Iterator[Block]:
    data = results.experiment(task, results.config.reference).data.recall
    names, reference = results.names(task), results.config.reference
    often = data.distance_weights or [1] * len(data.distances)
    yield Heading(f"3. Memory over distance: {short}")
    yield Paragraph(
        f"{data.item_count} items of {data.symbols} symbols, then blanks; trained on all distances "
        f"at once, scored on each. Equal batches: {results.of(task, reference)[0]['steps']:,} "
        f"updates; pairs of {_list(data.distances)} blanks come {_list(often)} times as often, so "
        "that longer ones take no more of the batches. Exact match, %:"
    )
    rows = []
    for name in names:
        cells = [
            results.mean(task, name, exact_match_where("distances", d, d)).text()
            for d in sorted(data.distances)
        ]
        rows.append((name, f"{results.of(task, name)[0]['parameters']:,}", *cells))
    yield Table(("", "parameters", *map(str, sorted(data.distances))), rows)
    yield Picture(
        f"recall-{short}",
        figures.by_distance(results, task),
        "Exact match and the reach of gradients against distance",
    )
    yield Paragraph(
        "Orders of magnitude by which the norm of ∂ logits(t) / ∂ input(t - k) falls from the last "
        f"blank to the items, {max(data.distances)} blanks away; t is the first word written, k "
        f"counts back from the source's end. Norms below {SMALLEST:g} count as that: what falls "
        "further falls at least so far."
    )
    rows = [
        (
            name,
            *(
                results.mean(task, name, lambda r, w=when: faded(r["reach"][w], data)).text(1)
                for when in ("untrained", "trained")
            ),
        )
        for name in names
    ]
    yield Table(("", "untrained", "trained"), rows)


def _attention(results: Results) -> Iterator[Block]:
    ranges = bins(results)
    values = [exact_match_where("lengths", low, high) for low, high in ranges]
    header = ("", *(f"{low}-{high}" for low, high in ranges))
    lengths = results.of(T, results.config.reference)[0]["lengths"]
    counts = [sum(low <= n <= high for n in lengths) for low, high in ranges]
    yield Heading("4. What attention adds")
    yield Paragraph("Exact match, %, by words of the source:")
    rows = [
        (name, *(results.mean(T, name, value).text() for value in values))
        for name in results.names(T)
    ]
    yield Table(header, [*rows, ("sentences", *(f"{count:,}" for count in counts))])
    pairs = list(results.pairs(T))
    if pairs:
        yield Paragraph("Points that attention adds to the same family without:")
        rows = [
            (
                f"{name} less {plain}",
                *(results.difference(T, name, plain, value).text(signed=True) for value in values),
            )
            for name, plain in pairs
        ]
        yield Table(header, rows)
    yield Picture("lengths", figures.by_length(results, ranges), "Exact match by source length")


def _alignments(results: Results) -> dict[str, list[WordMap]]:
    """Alignments of the configured sentences, by each experiment that attends; the first seed."""
    maps = {}
    for run in results.runs:
        if run.task == T and run.seed == results.config.seeds[0] and attends(run.config):
            experiment = Experiment.open(run.workdir)
            params, _ = load_params(experiment)
            inspector = SentenceInspector(experiment, params, open_translator(experiment, params))
            pairs = results.config.sentences
            maps[run.name] = [inspector.inspect(*pair).cross for pair in pairs]
    return maps


def _aligned(results: Results, maps: dict[str, list[WordMap]]) -> Iterator[Block]:
    if not (maps and results.config.sentences):
        return
    yield Heading("5. Alignments")
    yield Paragraph(
        "The same sentences and the same given translations: a row for each target word, how much "
        "it drew on each source word (a mean over layers and heads where there are several), as "
        f"trained with seed {results.config.seeds[0]}."
    )
    yield Picture("alignments", figures.alignments(maps), "Attention of each family")
