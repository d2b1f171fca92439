"""A report as blocks, written as Markdown beside its pictures and as one HTML file."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformer import files
from transformer.files import AnyPath
from transformer.inspection.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62em; margin: 2em auto;
       padding: 0 1em }
table { border-collapse: collapse; font-size: 14px; margin: 1em 0; display: block;
        overflow-x: auto }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; vertical-align: top }
th:first-child, td:first-child { text-align: left }
td.text { text-align: left; white-space: normal }
img { max-width: 100% }
code { background: #f4f4f4; padding: .1em .3em }
"""


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text; what stands between backquotes is code, between double asterisks bold."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text (as in a paragraph) under their headings.

    Columns named in `texts` are read, not compared.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A figure, in a file of its own beside the Markdown."""

    name: str
    figure: "Figure"
    alt: str


Block = Heading | Paragraph | Table | Picture


def write(folder: AnyPath, name: str, blocks: Iterable[Block]) -> list[AnyPath]:
    """Writes NAME.md with NAME-PICTURE.png beside it, and NAME.html, which holds all.

    Returns:
        The two texts' paths. Each file is on disk whole or not at all.
    """
    blocks = list(blocks)
    for block in blocks:
        if isinstance(block, Picture):
            write_figure(_picture(folder, name, block), block.figure)
    markdown, page = folder / f"{name}.md", folder / f"{name}.html"
    files.write(markdown, "\n\n".join(_markdown(name, block) for block in blocks) + "\n")
    title = next((b.text for b in blocks if isinstance(b, Heading)), name)
    body = "\n".join(_html(folder, name, block) for block in blocks)
    files.write(
        page,
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n</html>\n",
    )
    return [markdown, page]


def _picture(folder: AnyPath, name: str, picture: Picture) -> AnyPath:
    return folder / f"{name}-{picture.name}.png"


def _markdown(name: str, block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Paragraph():
            return block.text
        case Picture():
            return f"![{block.alt}]({name}-{block.name}.png)"
        case Table():
            marks = [":---" if _is_text(block, i) else "---:" for i in range(len(block.header))]
            rows = [block.header, marks, *block.rows]
            return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _is_text(table: Table, column: int) -> bool:
    return column == 0 or table.header[column] in table.texts


def _html(folder: AnyPath, name: str, block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_spans(block.text)}</p>"
        case Picture():
            data = base64.b64encode(_picture(folder, name, block).read_bytes()).decode()
            return f'<img alt="{html.escape(block.alt)}" src="data:image/png;base64,{data}">'
        case Table():
            head = "".join(f"<th>{_spans(cell)}</th>" for cell in block.header)
            rows = "\n".join(
                "<tr>" + "".join(_td(block, i, cell) for i, cell in enumerate(row)) + "</tr>"
                for row in block.rows
            )
            return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _td(table: Table, column: int, cell: str) -> str:
    kind = ' class="text"' if _is_text(table, column) else ""
    return f"<td{kind}>{_spans(cell)}</td>"


def _spans(text: str) -> str:
    pieces = html.escape(text).split("`")
    text = "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
