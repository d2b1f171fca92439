"""Text is UTF-8 whatever the locale, and a line ends at \\n: U+2028 and its kin are text."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

FILES = [
    path for room in ("transformer", "experiments") for path in sorted((ROOT / room).rglob("*.py"))
]


def faults(source: str) -> Iterator[str]:
    """Calls that cut text at more than line feeds, or take their encoding from the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        named = {keyword.arg for keyword in node.keywords}
        given = [value.value for value in node.args if isinstance(value, ast.Constant)]
        if name == "splitlines":
            yield f"{node.lineno}: splitlines"
        if name in ("read_text", "write_text") and owner != "treebank" and "encoding" not in named:
            needed = 1 if name == "read_text" else 2
            if len(node.args) < needed:
                yield f"{node.lineno}: {name} without an encoding"
        if name == "open" and "encoding" not in named and owner != "os":
            modes = [mode for mode in given if isinstance(mode, str) and set(mode) <= set("rwxab+")]
            is_text = not any("b" in mode for mode in modes)
            if is_text and (modes or isinstance(node.func, ast.Name) or owner == "path"):
                yield f"{node.lineno}: open without an encoding"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_depends_on_the_locale_or_is_cut_at_a_separator(path: Path) -> None:
    assert not [*faults(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "code", ["a.splitlines()", "p.read_text()", "p.write_text('x')", "open(p)", "path.open('a')"]
)
def test_a_fault_is_seen(code: str) -> None:
    assert list(faults(code))
