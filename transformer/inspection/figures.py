"""Attention as a matrix that one reads: in a terminal, and as a picture."""

import os
import unicodedata
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float
from rich.cells import cell_len

from transformer import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SHADES = " ░▒▓█"  # of a weight from 0 to 1, a quarter each; blank below half a percent
LABEL_WIDTH = 14  # terminal cells of a label, at most
PICTURE_LABEL_WIDTH = 40  # in a picture
# What turns the direction of the text behind it, across labels and columns.
DIRECTIONS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
UNSHOWN = {"Cc": "\ufffd", "Cs": "\ufffd", "Zl": " ", "Zp": " "}  # by Unicode's category
Weights = Float[Array | np.ndarray, "T S"]


def attention_text(
    weights: Weights, target_pieces: Sequence[str], source_pieces: Sequence[str], *, width: int = 80
) -> str:
    """A matrix for the terminal: a row for each target piece, shades and per cent.

    Where that is wider than `width` terminal cells, shades alone, under numbers that a line below
    explains; a source too long even for those is cut, and says so.

    Args:
        weights: from 0 to 1.
        target_pieces: T labels, pieces or words.
        source_pieces: S labels.
        width: terminal cells.

    Raises:
        ValueError: other numbers of labels than rows and columns.
    """
    weights_TS = _checked(weights, target_pieces, source_pieces)
    rows = [_fit(as_label(piece), LABEL_WIDTH) for piece in target_pieces]
    columns = [_fit(as_label(piece), LABEL_WIDTH) for piece in source_pieces]
    margin = max((cell_len(row) for row in rows), default=0)
    widths = [max(5, cell_len(column)) for column in columns]
    if margin + sum(w + 2 for w in widths) <= width:
        head = [_right(column, w) for column, w in zip(columns, widths, strict=True)]
        body = [
            [f"{_shade(x) * 2}{_percent(x):>3}".rjust(w) for x, w in zip(row, widths, strict=True)]
            for row in weights_TS.tolist()
        ]
        return _lines(margin, ["", *rows], [head, *body], "  ")

    columns_shown = max((width - margin) // 3, 1)
    head = [f"{i + 1:>2}"[-2:] for i in range(len(columns))][:columns_shown]
    body = [[_shade(x) * 2 for x in row][:columns_shown] for row in weights_TS.tolist()]
    entries = [f"{i + 1} {column}" for i, column in enumerate(columns[:columns_shown])]
    if columns_shown < len(columns):
        entries.append(f"({len(columns) - columns_shown} more are not shown)")
    return _lines(margin, ["", *rows], [head, *body], " ") + f"\n\n{_wrap(entries, width)}"


def attention_png(
    path: str | os.PathLike[str],
    weights: Weights | Float[Array | np.ndarray, "H T S"],
    target_pieces: Sequence[str],
    source_pieces: Sequence[str],
    *,
    title: str,
) -> None:
    """A picture of one matrix, or of each head's; on disk whole or not at all.

    Args:
        path: of the PNG; its folder must exist.
        weights: from 0 to 1.
        target_pieces: T labels, pieces or words.
        source_pieces: S labels.
        title: above the picture.

    Raises:
        ValueError: other numbers of labels than rows and columns.
    """
    # Here, because a terminal's matrix needs none of it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heads = [weights] if weights.ndim == 2 else list(weights)
    heads = [_checked(head, target_pieces, source_pieces) for head in heads]
    T, S = heads[0].shape
    columns = min(len(heads), min((4, 3), key=lambda n: -len(heads) % n))
    rows = -(-len(heads) // columns)
    cell = 0.62 if len(heads) == 1 else 0.34  # inches
    figure = Figure(
        figsize=(columns * (S * cell + 1.3) + 0.9, rows * (T * cell + 1.1) + 0.5),
        dpi=160,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    image = None
    for number, axes in enumerate(grid.flat):
        if number >= len(heads):
            axes.set_axis_off()
            continue
        image = draw(axes, heads[number], target_pieces, source_pieces)
        if len(heads) > 1:
            axes.set_xlabel(f"head {number + 1}", fontsize=9, color="#555555")
        else:
            _write_numbers(axes, heads[0])
    assert image is not None
    bar = figure.colorbar(image, ax=grid, shrink=0.9, aspect=26, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(length=0, labelsize=8, labelcolor="#555555")
    bar.set_label("attention weight", fontsize=9, color="#555555")
    figure.suptitle(title, fontsize=12, parse_math=False)

    write_figure(files.any_path(path), figure)


def draw(
    axes: "Axes", weights: Weights, target_pieces: Sequence[str], source_pieces: Sequence[str]
) -> "AxesImage":
    """One matrix into axes: source on top, target at the left.

    Raises:
        ValueError: other numbers of labels than rows and columns.
    """
    checked = _checked(weights, target_pieces, source_pieces)
    image = axes.imshow(checked, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    _decorate(axes, target_pieces, source_pieces)
    return image


def write_figure(path: files.AnyPath, figure: "Figure") -> None:
    """A PNG, on disk whole or not at all. A box stands for what no font has."""
    with files.whole(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(file, format="png", metadata={"Software": None})


def _decorate(axes: "Axes", target_pieces: Sequence[str], source_pieces: Sequence[str]) -> None:
    """Labels, and thin white lines between cells."""
    T, S = len(target_pieces), len(source_pieces)
    target_pieces, source_pieces = (
        [_fit(as_label(piece), PICTURE_LABEL_WIDTH) for piece in pieces]
        for pieces in (target_pieces, source_pieces)
    )
    axes.set_xticks(range(S), labels=source_pieces)
    if max(map(len, source_pieces), default=0) > 6 or S > 8:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="left", rotation_mode="anchor")
    axes.set_yticks(range(T), labels=target_pieces)
    axes.tick_params(
        length=0, labelsize=10, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a price is no formula
    axes.set_xticks(np.arange(S + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(T + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0, top=False, bottom=False, left=False)
    axes.spines[:].set_visible(False)


def _write_numbers(axes: "Axes", weights_TS: np.ndarray) -> None:
    for (t, s), weight in np.ndenumerate(weights_TS):
        if weight >= 0.01:
            colour = "white" if weight > 0.55 else "#1f3b5c"
            axes.text(s, t, f"{weight:.2f}", ha="center", va="center", fontsize=8, color=colour)


def as_label(text: str) -> str:
    """Text that stays where it is put: one line, no control characters, no change of direction.

    What joins characters without being seen stays: emoji, Persian and Indic scripts need it.
    """
    without_directions = text.translate(DIRECTIONS)
    return "".join(
        UNSHOWN.get(unicodedata.category(character), character) for character in without_directions
    )


def _checked(weights: Weights, target: Sequence[str], source: Sequence[str]) -> np.ndarray:
    weights_TS = np.asarray(weights, np.float32)
    if weights_TS.shape != (len(target), len(source)):
        raise ValueError(
            f"attention of shape {weights_TS.shape} for {len(target)} target and "
            f"{len(source)} source labels"
        )
    return weights_TS


def _shade(weight: float) -> str:
    return SHADES[min(int(weight * 4) + 1, 4)] if weight >= 0.005 else " "


def _percent(weight: float) -> str:
    return f"{100 * weight:.0f}" if weight >= 0.005 else ""


def _lines(margin: int, labels: Sequence[str], cells: Sequence[Sequence[str]], gap: str) -> str:
    """Labels flush right, then the cells."""
    rows = zip(labels, cells, strict=True)
    return "\n".join((_right(label, margin) + gap + gap.join(row)).rstrip() for label, row in rows)


def _wrap(entries: Sequence[str], width: int) -> str:
    lines = [""]
    for entry in entries:
        if lines[-1] and cell_len(lines[-1]) + 2 + cell_len(entry) > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + entry
    return "\n".join(lines)


def _right(text: str, width: int) -> str:
    """`text` flush right in terminal cells: wide characters take two, combining ones none."""
    return " " * (width - cell_len(text)) + text


def _fit(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis where it is wider; accents stay on letters."""
    if cell_len(text) <= width:
        return text
    beginning = ""
    for character in text:
        if cell_len(beginning + character) > width - 1:
            break
        beginning += character
    return beginning + "…"
