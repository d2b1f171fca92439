"""A constituency tree, flat: its words, and which of them each constituent covers.

So nothing here recurses, however deep a tree that a model made up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

TOP = "TOP"  # what holds a sentence together that no constituent covers; never scored
ROOTS = frozenset({"", TOP, "ROOT", "S1"})  # how treebanks call the bracket around a sentence
BRACKETS = {"(": "-LRB-", ")": "-RRB-"}  # which words of bracketed text cannot have


class Span(NamedTuple):
    """A constituent: words `start` to `end`, the latter not included."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Tree:
    """A sentence with its constituents."""

    words: tuple[str, ...]
    tags: tuple[str, ...]  # parts of speech, one a word
    spans: tuple[Span, ...]  # each before those within it, left to right; none is empty

    def walk(self) -> Iterator[tuple[str, int]]:
        """Brackets and words from left to right: ("(NP", 0), ("", word's number), (")NP", 0)."""
        inner, rest = [], list(reversed(self.spans))
        for number in range(len(self.words)):
            while rest and rest[-1].start == number:
                inner.append(rest.pop())
                yield f"({inner[-1].label}", 0
            yield "", number
            while inner and inner[-1].end == number + 1:
                yield f"){inner.pop().label}", 0

    def bracketed(self) -> str:
        """On one line, as `penn` reads it and EVALB does: (S (NP (DT the) (NN dog)) ...)."""
        text = ""
        for bracket, number in self.walk():
            if bracket.startswith(")"):
                text += ")"
            elif bracket:
                text += f" {bracket}"
            else:
                text += f" ({self.tags[number]} {_escaped(self.words[number])})"
        return text.lstrip()


def _escaped(word: str) -> str:
    for bracket, name in BRACKETS.items():
        word = word.replace(bracket, name)
    return word
