"""The documentation site: `sphinx-build -W docs docs/_build`."""

import re
from typing import Any

import transformer

project = "transformer"
version = release = transformer.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have them, with their dimensions
autodoc_default_options = {"exclude-members": "parent, name, tree_flatten, tree_unflatten"}
toc_object_entries = False

_SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes):$")


def _as_rest(docstring: list[str]) -> list[str]:
    """Our plain docstrings as reStructuredText: code in backticks, indented text literal."""
    lines, in_section = [], False
    for number, line in enumerate(docstring):
        if line and not line.startswith(" "):
            in_section = bool(_SECTION.match(line))
        before = docstring[number - 1] if number else ""
        starts_block = line.startswith("    ") and not in_section and not before.startswith("    ")
        if starts_block:
            lines += ["", "::", ""]
        if not (line.startswith("    ") and not in_section):
            line = re.sub(r"`([^`]+)`", r"``\1``", line)
            line = re.sub(r"(?<![\w`])([*|])", r"\\\1", line)
            line = re.sub(r"(\w)_(?=[\s,.;:)]|$)", r"\1\\_", line)
        elif before and not before.startswith("    ") and not starts_block:
            lines.append("")
        lines.append(line)
    return lines


_fields: dict[str, list[str]] = {}


def _process(_app: Any, what: str, name: str, _obj: Any, _opts: Any, lines: list[str]) -> None:
    lines[:] = _as_rest(lines)
    if what in ("attribute", "property"):
        _fields[name] = [*lines]


def _restore(_app: Any, _what: str, name: str, _obj: Any, _opts: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a field's first colon for its type."""
    lines[:] = _fields.get(name, lines)


def _without_fields(_app: Any, what: str, name: str, *_: Any) -> tuple[str, str] | None:
    """A section of the configuration lists its keys below; its signature would, too."""
    is_section = what == "class" and name.startswith("transformer.config.")
    return ("", "") if is_section else None


def _without_repository_links(_app: Any, _name: str, content: list[str]) -> None:
    """Links to files of the repository become their names: the site holds the pages alone."""
    content[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", content[0])


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-docstring", _restore, priority=900)
    app.connect("autodoc-process-signature", _without_fields)
    app.connect("source-read", _without_repository_links)
