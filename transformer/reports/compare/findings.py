"""What the field says of these families, and what was measured of it here."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from transformer.reports.compare.reach import faded
from transformer.reports.compare.results import (
    Results,
    Value,
    attends,
    bins,
    exact_match,
    exact_match_where,
)
from transformer.reports.statistics import Estimate

VERDICTS = {1: "borne out", 0: "undecided", -1: "contradicted"}


@dataclass(frozen=True)
class Finding:
    """A claim and a measurement that could have spoken against it."""

    claim: str
    source: str
    measured: str
    verdict: str  # borne out | undecided: the interval holds zero | contradicted


def findings(results: Results) -> list[Finding]:
    """All that the comparison's experiments can say."""
    claims = [*_quality(results), *_speed(results)]
    for task in results.config.recall:
        claims += _recall(results, f"recall.{task}", task)
    return claims


def _judged(claim: str, source: str, what: str, estimate: Estimate, unit: str) -> Finding:
    """A claim that something is above zero."""
    measured = f"{what}: {estimate.text(signed=True)} {unit}".rstrip()
    return Finding(claim, source, measured, VERDICTS[estimate.sign])


def _quality(results: Results) -> Iterator[Finding]:
    task, reference = "translation", results.config.reference
    ranges = bins(results)
    for name, plain in results.pairs(task):
        yield _judged(
            "Attention helps a recurrent translator",
            "Bahdanau et al. 2015, Luong et al. 2015",
            f"{name} less {plain}, exact match",
            results.difference(task, name, plain, exact_match),
            "points",
        )
        if len(ranges) > 1:
            short, long = (exact_match_where("lengths", *ends) for ends in (ranges[0], ranges[-1]))
            value = lambda result, long=long, short=short: long(result) - short(result)  # noqa: E731
            yield _judged(
                "It helps more, the longer the sentence",
                "Bahdanau et al. 2015, Fig. 2",
                f"what {name} gains over {plain} in the longest sentences, less in the shortest",
                results.difference(task, name, plain, value),
                "points",
            )
    for name in results.names(task):
        experiment = results.experiment(task, name)
        if name != reference and attends(experiment):
            yield _judged(
                "The Transformer translates better than recurrent networks with attention",
                "AIAYN, Table 2",
                f"{reference} less {name}, exact match",
                results.difference(task, reference, name, exact_match),
                "points",
            )
    yield from _gates(results, task, exact_match, "translates", "Chung et al. 2014", "exact match")


def _gates(
    results: Results, task: str, value: Value, does: str, source: str, what: str
) -> Iterator[Finding]:
    families = {
        results.experiment(task, name).model.family: name
        for name in results.names(task)
        if not attends(results.experiment(task, name))
    }
    for family in ("gru", "lstm"):
        if family in families and "rnn" in families:
            name, plain = families[family], families["rnn"]
            yield _judged(
                f"A network with gates {does} better than one without",
                source,
                f"{name} ({_size(results, task, name)}) less {plain} "
                f"({_size(results, task, plain)}), {what}",
                results.difference(task, name, plain, value),
                "points",
            )


def _size(results: Results, task: str, name: str) -> str:
    return f"{results.of(task, name)[0]['parameters'] / 1e6:.2f} M"


def _speed(results: Results) -> Iterator[Finding]:
    """At the shortest and the longest sentences for which both were measured, round by round."""
    reference = results.config.reference
    for name in results.names("translation"):
        if results.experiment("translation", name).model.family == "transformer":
            continue
        ratios = {
            length: [a / b for a, b in zip(*both, strict=True)]
            for length, rows in results.speeds.items()
            if all(both := [rows[who]["train_rounds"] for who in (name, reference)])
        }
        for length in dict.fromkeys((min(ratios), max(ratios))):
            low, middle, high = min(ratios[length]), median(ratios[length]), max(ratios[length])
            yield Finding(
                "One parallel pass trains faster than a step for each position",
                "AIAYN, §4",
                f"{length} tokens: time of a step, {name} over {reference}: {middle:.2f}, rounds "
                f"{low:.2f} to {high:.2f}",
                VERDICTS[(low > 1.0) - (high < 1.0)],
            )


def _recall(results: Results, task: str, short: str) -> Iterator[Finding]:
    data = results.experiment(task, results.config.reference).data.recall
    near, far = min(data.distances), max(data.distances)
    at_far, at_near = (exact_match_where("distances", d, d) for d in (far, near))
    plain = [n for n in results.names(task) if not attends(results.experiment(task, n))]
    for name in plain:
        yield _judged(
            "A state that is handed on forgets over distance",
            "Bengio et al. 1994, Hochreiter 1998",
            f"{short}: {name} over {near} blanks less over {far}, exact match",
            results.mean(task, name, lambda result: at_near(result) - at_far(result)),
            "points",
        )
    for name, without in results.pairs(task):
        yield _judged(
            "Attention remembers where a state forgets",
            "Bahdanau et al. 2015, §1",
            f"{short} over {far} blanks: {name} less {without}, exact match",
            results.difference(task, name, without, at_far),
            "points",
        )
    what = f"{short} over {far} blanks, exact match"
    source = "Hochreiter and Schmidhuber 1997"
    yield from _gates(results, task, at_far, "remembers", source, what)
    for name in plain:
        yield _judged(
            "Gradients through an untrained recurrent state vanish with distance",
            "Bengio et al. 1994",
            f"{short}, {name}: orders of magnitude from the last blank to items {far} blanks away",
            results.mean(task, name, lambda result: faded(result["reach"]["untrained"], data)),
            "",
        )
