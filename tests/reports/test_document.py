"""A report's blocks as Markdown and as HTML."""

import base64
from html.parser import HTMLParser
from pathlib import Path

from matplotlib.figure import Figure

from transformer.reports import document
from transformer.reports.document import Heading, Paragraph, Picture, Table

PNG = b"\x89PNG\r\n"


def figure() -> Figure:
    drawn = Figure(figsize=(1, 1))
    drawn.subplots().plot([1, 2])
    return drawn


BLOCKS = [
    Heading("Results & more", 1),
    Paragraph("Run `a < b`."),
    Table(("", "x|y", "said"), [("row", "1", "a | b"), ("<i>", "2", "c")], texts=("said",)),
]


def test_markdown_and_html_say_the_same(tmp_path: Path) -> None:
    markdown, page = document.write(
        tmp_path, "report", [*BLOCKS, Picture("curve", figure(), "A <curve>")]
    )
    assert markdown.read_text() == (
        "# Results & more\n\n"
        "Run `a < b`.\n\n"
        "|  | x\\|y | said |\n| :--- | ---: | :--- |\n| row | 1 | a \\| b |\n| <i> | 2 | c |\n\n"
        "![A <curve>](report-curve.png)\n"
    )
    text = page.read_text()
    assert "<h1>Results &amp; more</h1>" in text and "<title>Results &amp; more</title>" in text
    assert "<p>Run <code>a &lt; b</code>.</p>" in text
    assert '<td class="text">&lt;i&gt;</td><td>2</td><td class="text">c</td>' in text


def test_the_html_needs_no_other_file(tmp_path: Path) -> None:
    _, page = document.write(tmp_path, "report", [Picture("curve", figure(), "curve")])
    sources = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Images().feed(page.read_text())
    (source,) = sources
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    assert data.startswith(PNG) and data == (tmp_path / "report-curve.png").read_bytes()
