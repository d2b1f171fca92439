"""The comparison's plots. One colour an experiment, in every plot the same."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transformer.inspection import WordMap
from transformer.inspection.figures import draw
from transformer.reports.compare.reach import SMALLEST
from transformer.reports.compare.results import Results, exact_match_where
from transformer.reports.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf",
    "#7f7f7f", "#bcbd22",
)  # fmt: skip


def _figure(panels: int, height: float = 4.2) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * panels, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False).flat)
    for each in axes:
        each.grid(color="#dddddd", linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colour(results: Results, name: str) -> str:
    everyone = [*results.names("translation")]
    for task in results.config.recall:
        everyone += [n for n in results.names(f"recall.{task}") if n not in everyone]
    return COLOURS[everyone.index(name) % len(COLOURS)]


def speed(results: Results) -> "Figure":
    """Seconds of a training step, of a decoded token, and what decoding holds, by length."""
    figure, panels = _figure(3)
    quantities = {
        "training step, seconds": lambda row: row["train_seconds"],
        "decoding, seconds a token": lambda row: row["decode_seconds"],
        "kept while decoding a sentence, bytes": lambda row: (
            row["state_bytes"] + row["memory_bytes"]
        ),
    }
    for axes, (title, value) in zip(panels, quantities.items(), strict=True):
        for name in results.names("translation"):
            points = [(n, value(rows[name])) for n, rows in results.speeds.items()]
            points = [(n, y) for n, y in points if y]
            if points:
                colour = _colour(results, name)
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name, markersize=4)
        axes.set(xscale="log", yscale="log", title=title, xlabel="tokens a sentence")
        axes.set_xticks(list(results.speeds), labels=[str(n) for n in results.speeds])
        axes.minorticks_off()
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def by_distance(results: Results, task: str) -> "Figure":
    """Exact match over each distance, and how far gradients reach, untrained and trained."""
    figure, panels = _figure(3)
    reference = results.experiment(task, results.config.reference)
    distances = sorted(reference.data.recall.distances)
    for name in results.names(task):
        colour = _colour(results, name)
        estimates = [
            results.mean(task, name, exact_match_where("distances", d, d)) for d in distances
        ]
        _band(panels[0], distances, estimates, colour, name)
        for axes, when in zip(panels[1:], ("untrained", "trained"), strict=True):
            norms = np.array([result["reach"][when] for result in results.of(task, name)])
            middle = np.exp(np.log(np.maximum(norms, SMALLEST)).mean(axis=0))
            middle[(norms == 0.0).any(axis=0)] = np.nan  # too small to be seen
            axes.plot(np.arange(1, len(middle)), middle[1:], color=colour, label=name)
    panels[0].set(xscale="log", ylim=(-3, 103), title="exact match, %", xlabel="blanks")
    panels[0].set_xticks(distances, labels=[str(d) for d in distances])
    panels[0].minorticks_off()
    panels[0].legend(frameon=False, fontsize=8)
    for axes, when in zip(panels[1:], ("untrained", "trained"), strict=True):
        title = f"norm of ∂ logits(t) / ∂ input(t - k), {when}"
        axes.set(xscale="log", yscale="log", title=title, xlabel="k")
    return figure


def by_length(results: Results, ranges: Sequence[tuple[int, int]]) -> "Figure":
    """Exact match by the length of the source."""
    figure, (axes,) = _figure(1)
    places = list(range(len(ranges)))
    for name in results.names("translation"):
        estimates = [
            results.mean("translation", name, exact_match_where("lengths", low, high))
            for low, high in ranges
        ]
        _band(axes, places, estimates, _colour(results, name), name)
    axes.set_xticks(places, labels=[f"{low}-{high}" for low, high in ranges])
    axes.set(title="exact match, %", xlabel="words of the source", ylim=(-3, 103))
    axes.legend(frameon=False, fontsize=8)
    return figure


def _band(
    axes: "Axes", x: Sequence[float], estimates: Sequence[Estimate], colour: str, name: str
) -> None:
    axes.plot(x, [e.value for e in estimates], "o-", color=colour, label=name, markersize=4)
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def alignments(maps: Mapping[str, Sequence[WordMap]]) -> "Figure":
    """A row a sentence, a column an experiment."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sentences = len(next(iter(maps.values())))
    shapes = [view.weights_TS.shape for view in next(iter(maps.values()))]
    height = sum(0.34 * t + 1.2 for t, _ in shapes)
    width = max(0.4 * s + 1.4 for _, s in shapes)
    figure = Figure(figsize=(width * len(maps), height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        sentences, len(maps), squeeze=False, height_ratios=[t + 3 for t, _ in shapes]
    )
    for column, (name, views) in enumerate(maps.items()):
        for row, view in enumerate(views):
            draw(grid[row, column], view.weights_TS, view.target, view.source)
            grid[row, column].set_xlabel(name, fontsize=9, color="#555555")
    return figure
