"""What the field says of these families, and what was measured of it here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from transformer.reports.compare.results import (
    Results,
    Value,
    attends,
    bins,
    exact_match,
    exact_match_where,
)
from transformer.reports.statistics import Estimate, difference

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
    found = [*_quality(results), *_speed(results)]
    for task in results.config.recall:
        found += _recall(results, f"recall.{task}", task)
    return found


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
            gains = []
            for low, high in (ranges[-1], ranges[0]):
                value = exact_match_where("lengths", low, high)
                ours, theirs = (results.values(task, n, value) for n in (name, plain))
                gains.append([a - b for a, b in zip(ours, theirs, strict=True)])
            yield _judged(
                "It helps more, the longer the sentence",
                "Bahdanau et al. 2015, Fig. 2",
                f"what {name} gains over {plain} in the longest sentences, less in the shortest",
                difference(*gains),
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
                f"{name} less {plain}, {what}",
                results.difference(task, name, plain, value),
                "points",
            )


def _speed(results: Results) -> Iterator[Finding]:
    reference, lengths = results.config.reference, list(results.speeds)
    for name in results.names("translation"):
        if results.experiment("translation", name).model.family == "transformer":
            continue
        trained = [n for n in lengths if results.speeds[n][name]["train_seconds"]]
        ratios = {
            n: results.speeds[n][name]["train_seconds"]
            / results.speeds[n][reference]["train_seconds"]
            for n in (trained[0], trained[-1])
            if results.speeds[n][reference]["train_seconds"]
        }
        shown = ", ".join(f"{ratio:.2f} at {n} tokens" for n, ratio in ratios.items())
        longest = list(ratios.values())[-1]
        yield Finding(
            "One parallel pass trains faster than a step for each position",
            "AIAYN, §4",
            f"time of a step, {name} over {reference}: {shown}",
            VERDICTS[1 if longest > 1.0 else -1],
        )
        grown = [_grown(results, who, "state_bytes") for who in (name, reference)]
        yield Finding(
            "A recurrent network decodes with constant state",
            "AIAYN, §1",
            f"state of a hypothesis at {lengths[-1]} tokens, times that at {lengths[0]}: "
            f"{name} {grown[0]:.1f}, {reference} {grown[1]:.1f}; what is kept of the source: "
            f"{name} {_grown(results, name, 'memory_bytes'):.1f}",
            VERDICTS[1 if grown[0] <= 1.0 else -1],
        )


def _grown(results: Results, name: str, key: str) -> float:
    first, *_, last = results.speeds.values()
    return last[name][key] / max(first[name][key], 1)


def _recall(results: Results, task: str, short: str) -> Iterator[Finding]:
    distances = results.experiment(task, results.config.reference).data.recall.distances
    near, far = min(distances), max(distances)
    at_far, at_near = (exact_match_where("distances", d, d) for d in (far, near))
    for name in results.names(task):
        if not attends(results.experiment(task, name)):
            lost = difference(
                results.values(task, name, at_near), results.values(task, name, at_far)
            )
            yield _judged(
                "A state that is handed on forgets over distance",
                "Bengio et al. 1994, Hochreiter 1998",
                f"{short}: {name} over {near} blanks less over {far}, exact match",
                lost,
                "points",
            )
    for name, plain in results.pairs(task):
        yield _judged(
            "Attention remembers where a state forgets",
            "Bahdanau et al. 2015, §1",
            f"{short} over {far} blanks: {name} less {plain}, exact match",
            results.difference(task, name, plain, at_far),
            "points",
        )
    what = f"{short} over {far} blanks, exact match"
    source = "Hochreiter and Schmidhuber 1997"
    yield from _gates(results, task, at_far, "remembers", source, what)
    for when in ("untrained", "trained"):
        for name in results.names(task):
            if not attends(results.experiment(task, name)):
                value = lambda result, when=when: fading(result["reach"][when], far)  # noqa: E731
                yield _judged(
                    "Gradients through a recurrent state vanish with distance",
                    "Bengio et al. 1994",
                    f"{short}, {name}, {when}: orders of magnitude between the norm at k = 1 and "
                    f"at k = {far}",
                    results.mean(task, name, value),
                    "",
                )


def fading(norms: list[float], far: int) -> float:
    """Orders of magnitude that gradients lose from k = 1 to k = `far`."""
    tiny = 1e-45  # the smallest float32
    return math.log10(max(norms[1], tiny)) - math.log10(max(norms[far], tiny))
