"""Columns stand under one another, numbers are the weights, and a picture is whole or absent."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.cells import cell_len

from transformer.errors import UserError
from transformer.inspection import attention_png, attention_text
from transformer.inspection.sentence import check_line

WEIGHTS_TS = np.array([[0.93, 0.02, 0.046, 0.004], [0.0, 0.3, 0.4, 0.3], [0.1, 0.6, 0.0, 0.3]])
TARGET, SOURCE = ["the", "house", "</s>"], ["la", "casa", "roja", "</s>"]


def test_text_as_printed() -> None:
    assert attention_text(WEIGHTS_TS, TARGET, SOURCE).splitlines() == [
        "          la   casa   roja   </s>",
        "  the  ██ 93  ░░  2  ░░  5",
        "house         ▒▒ 30  ▒▒ 40  ▒▒ 30",
        " </s>  ░░ 10  ▓▓ 60         ▒▒ 30",
    ]


def test_columns_line_up_under_wide_and_combining_characters() -> None:
    full_TS = np.full((3, 4), 0.25)
    labels = ["日本語", "cafe\u0301", "x" * 30], ["猫", "u\u0308ber", "日本語文字", "</s>"]
    lines = attention_text(full_TS, *labels).splitlines()
    assert len({cell_len(line) for line in lines}) == 1
    assert lines[2].startswith("          cafe\u0301  ")
    assert lines[3].startswith("x" * 13 + "…  ")
    wide = attention_text(full_TS, ["a", "b", "語" * 8], labels[1]).splitlines()[3]
    assert wide.startswith("語" * 6 + "…")  # 16 cells, though 8 characters
    accents = attention_text(full_TS, ["a", "b", "e\u0301" * 30], labels[1]).splitlines()[3]
    assert accents.startswith("e\u0301" * 13 + "…")


@pytest.mark.parametrize("width", [40, 80])
def test_a_long_source_fits_the_screen(width: int) -> None:
    random = np.random.default_rng(0)
    weights_TS = random.dirichlet(np.full(23, 0.1), 3)
    text = attention_text(weights_TS, TARGET, [f"palabra{i}" for i in range(23)], width=width)
    matrix, legend = text.split("\n\n")
    assert all(cell_len(line) <= width for line in text.splitlines())
    columns = 23 if width == 80 else (40 - 5) // 3
    assert matrix.splitlines()[0].split() == [str(i + 1) for i in range(columns)]
    assert ("23 palabra22" in legend) == (width == 80)
    assert ("12 more are not shown" in legend) == (width == 40)


def test_labels_must_match() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) for 4 target and 3 source"):
        attention_text(WEIGHTS_TS, SOURCE, TARGET)


@pytest.mark.parametrize("heads", [0, 1, 5, 8])
def test_png(tmp_path: Path, heads: int) -> None:
    weights = np.stack([WEIGHTS_TS] * heads) if heads else WEIGHTS_TS
    path = tmp_path / "attention.png"
    attention_png(path, weights, ["$x^$", *TARGET[1:]], SOURCE, title="la $casa$ → $x^$")
    image = imread(path)
    darkest_blue = (image[..., 2] - image[..., 0] > 0.3) & (image[..., 0] < 0.15)
    assert darkest_blue.mean() > 0.01  # the weight of 0.93 is there to see
    assert [file.name for file in tmp_path.iterdir()] == ["attention.png"]


def test_an_interrupted_png_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "attention.png"
    path.write_bytes(b"old")

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        attention_png(path, WEIGHTS_TS, TARGET, SOURCE, title="")
    assert path.read_bytes() == b"old"


ODD = [
    "👩\u200d🚀",
    "می\u200cروم",
    "10\u00a0€",
    "日本語",
    "$x_{",
    "a\u2028b",
    "हिन्दी",
    "\u202eabc",
    "a\x1b[2J\n",
]


def test_text_of_any_script_is_shown(tmp_path: Path) -> None:
    """Warnings are errors here: of glyphs that the font lacks, too."""
    weights = np.full((len(ODD), len(ODD)), 1 / len(ODD))
    lines = attention_text(weights, ODD, ODD, width=200).splitlines()
    assert len(lines) == len(ODD) + 1 and len({cell_len(line) for line in lines}) == 1
    assert lines[1].lstrip().startswith("👩\u200d🚀 ") and lines[2].lstrip().startswith(
        "می\u200cروم "
    )
    assert not any(character in "".join(lines) for character in "\u202e\u2028\x1b")
    attention_png(tmp_path / "a.png", weights, ODD, ["x" * 5000, *ODD[1:]], title="")
    assert imread(tmp_path / "a.png").size


@pytest.mark.parametrize(
    "text",
    [
        "10\u00a0€",
        "می\u200cروم",
        "👩\u200d🚀",
        "a\u00adb",
        "a\u2028b",
        "\ue000",
        "\U000e0041",
        "a\u3000b",
        "a\tb",
    ],
)
def test_a_line_of_text_is_taken(text: str) -> None:
    check_line(text)


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x1b", "\x85", "\udce9"])
def test_what_is_no_line_of_text_is_refused(character: str) -> None:
    with pytest.raises(UserError, match=r"character 3 of .* give one line of text") as refused:
        check_line(f"la{character}casa")
    assert str(refused.value).isprintable()
