"""Bracketed treebank files, as the Penn Treebank has them (Marcus et al. 1993), normalised.

A file holds trees one after another, over as many lines as they like, each in an outer bracket
without a label, with TOP, ROOT or S1, or in none. Trees come as the field trains on them and scores
them (Collins 1997; EVALB, Sekine and Collins 1997):

- labels without functions and indices: NP-SBJ-1, NP=2 and NP|ADJP are NP (-LRB- stays);
- without empty elements (-NONE-), and what has nothing else in it;
- without the outer bracket, and without a constituent whose only child has the same label;
- words without escapes: 1\\/2 is 1/2, \\* is *; brackets stay -LRB- and -RRB-.
"""

import glob
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformer.data.lines import Digests, read_lines
from transformer.data.treebank.tree import ROOTS, TOP, Span, Tree
from transformer.errors import UserError

VERSION = 1  # of the rules above: raise it when the same files give other trees

_tokens = re.compile(r"[()]|[^() \t\r\n\f\v]+").findall
_function = re.compile(r"(?<!^)[-=|].*").sub
EMPTY_ELEMENT = "-NONE-"


def files(pattern: str, key: str) -> list[str]:
    """The files that a pattern names: paths and globs, separated by commas, each glob sorted.

    Args:
        pattern: such as "wsj/0[2-9]/*.mrg,wsj/1?/*.mrg".
        key: of the configuration, for errors.

    Raises:
        UserError: there is no such file.
    """
    paths = []
    for part in filter(None, map(str.strip, pattern.split(","))):
        some = [part] if Path(part).exists() else sorted(glob.glob(part, recursive=True))
        if not some:
            raise UserError(f"{key}: there is no file {part}; check the path")
        paths += some
    if not paths:
        raise UserError(f"{key} is {pattern!r}, which names no file; take paths and globs")
    return paths


def read(path: str, key: str, digests: Digests | None = None) -> Iterator[Tree]:
    """Every tree of a file, plain or gzip, streaming; one of empty elements alone has no words.

    Raises:
        UserError: it cannot be read, is not UTF-8 or not bracketed; says in which line.
    """
    yield from _read(_decoded(path, key, digests), path)


def read_text(text: str) -> Iterator[Tree]:
    """Every tree of bracketed text. Raises UserError where it is none."""
    yield from _read(text.split("\n"), "the text")


def _decoded(path: str, key: str, digests: Digests | None) -> Iterator[str]:
    for number, line in enumerate(read_lines(path, key, digests), start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number} is not UTF-8 text (byte {error.start + 1}): convert the "
                "file, with iconv for instance"
            ) from error


@dataclass(slots=True)
class _Open:
    """A bracket that is not closed yet."""

    start: int  # the first word in it
    place: int  # of its span
    label: str | None = None
    word: str | None = None
    has_brackets: bool = False


@dataclass(slots=True)
class _Unfinished:
    """A tree that is being read."""

    line: int  # where it begins
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    spans: list[Span | None] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)


def _read(lines: Iterable[str], name: str) -> Iterator[Tree]:
    tree = None
    for number, line in enumerate(lines, start=1):
        for token in _tokens(line):
            tree = tree or _Unfinished(number)
            fault = _take(tree, token)
            if fault:
                raise UserError(f"{name}, line {number}: {fault}; mend the file")
            if not tree.open:
                yield _normalised(tree)
                tree = None
    if tree:
        lacking = (
            "a closing bracket" if len(tree.open) == 1 else f"{len(tree.open)} closing brackets"
        )
        raise UserError(
            f"{name}, line {tree.line}: the tree that begins here lacks {lacking}; mend the file"
        )


def _take(tree: _Unfinished, token: str) -> str:
    """Goes on by a bracket, a label or a word; what is wrong with it, or ""."""
    inner = tree.open[-1] if tree.open else None
    if token == "(":
        if inner and inner.word is not None:
            return f"the word {inner.word} has no bracket and part of speech of its own"
        if inner:
            inner.has_brackets = True
        tree.open.append(_Open(len(tree.words), len(tree.spans)))
        tree.spans.append(None)
    elif inner is None:
        return "a closing bracket too many" if token == ")" else f"{token} stands in no bracket"
    elif token == ")":
        if inner.word is None and not inner.has_brackets:
            return f"an empty constituent ({inner.label or ''})"
        _close(tree, tree.open.pop())
    elif inner.word is not None:
        return f"a bracket with two words, {inner.word} and {token}"
    elif inner.has_brackets:
        return f"the word {token} has no bracket and part of speech of its own"
    elif inner.label is None:
        inner.label = token
    else:
        inner.word = token
    return ""


def _close(tree: _Unfinished, closed: _Open) -> None:
    label = closed.label or ""
    if closed.word is None:
        if not label.startswith("-"):
            label = unicodedata.normalize("NFC", _function("", label))
        tree.spans[closed.place] = Span(label, closed.start, len(tree.words))
    elif label != EMPTY_ELEMENT:
        word = closed.word.replace("\\/", "/").replace("\\*", "*")
        tree.words.append(unicodedata.normalize("NFC", word))
        tree.tags.append(label)


def _normalised(tree: _Unfinished) -> Tree:
    """Whatever covers no word or repeats the one around it goes; one constituent holds the rest."""
    full = len(tree.words)
    spans = [span for span in tree.spans if span and span.start < span.end]
    while len(spans) > 1 and spans[0].label in ROOTS and spans[1][1:] == (0, full):
        del spans[0]
    if full and not (spans and spans[0][1:] == (0, full)):
        spans.insert(0, Span(TOP, 0, full))
    if spans and spans[0].label in ROOTS:
        spans[0] = Span(TOP, 0, full)
    # What follows a constituent and covers the same words is its only child.
    unique = [span for before, span in zip([None, *spans], spans, strict=False) if span != before]
    return Tree(tuple(tree.words), tuple(tree.tags), tuple(unique))
