"""Trees as sentences, and back (Vinyals et al. 2015, "Grammar as a Foreign Language").

    (S (NP XX XX )NP (VP XX )VP XX )S

Depth first, brackets with their labels, opening and closing; every word is XX, whatever its part of
speech, so that a model says no words: they are the source's. So there are few symbols, and what is
wrong with a model's brackets can be seen and mended.
"""

from collections.abc import Sequence
from typing import NamedTuple

from transformer.data.lines import CONTROL
from transformer.data.pairs import Pair, Problem
from transformer.data.treebank.tree import TOP, Span, Tree

WORD = "XX"  # stands for a word, and for its part of speech where that is not known


class Parse(NamedTuple):
    """A tree that was said by a model."""

    tree: Tree
    mended: bool  # what it said was no tree of that sentence


def linearise(tree: Tree) -> str:
    """A tree as a sentence of brackets."""
    return " ".join(bracket or WORD for bracket, _ in tree.walk())


def pair(tree: Tree) -> Pair:
    """The sentence, and its brackets."""
    words = " ".join(tree.words)
    problems = Problem(0) if words else Problem.EMPTY
    if CONTROL(words):
        problems |= Problem.CONTROL_CHARACTERS
    return Pair(words, linearise(tree), problems, tags=" ".join(tree.tags))


def put_together(brackets: str, words: Sequence[str], tags: Sequence[str] | None = None) -> Parse:
    """The tree of a sentence that these brackets mean, whatever is wrong with them.

    What is no bracket and no XX, an XX too many, and a closing bracket without an opening one are
    passed over; brackets that are not closed end with the one around them, or with the sentence;
    words left over belong to the outermost constituent; constituents without words are left out;
    and TOP holds together what nothing else does.

    Args:
        brackets: as `linearise` says them.
        words: of the sentence.
        tags: their parts of speech; None = not known.
    """
    at, full, mended = 0, len(words), False
    starts: list[tuple[str, int]] = []
    ends: list[int] = []  # of each of these; -1 = not known yet
    inner: list[int] = []  # which of them are open
    for symbol in brackets.split():
        label = symbol[1:]
        if symbol == WORD and at < full and inner:
            at += 1
        elif symbol == WORD and at < full:  # outside of all brackets
            at, mended = at + 1, True
        elif symbol[0] == "(" and label:
            inner.append(len(starts))
            starts.append((label, at))
            ends.append(-1)
        elif symbol[0] == ")" and any(starts[number][0] == label for number in inner):
            while True:
                number = inner.pop()
                ends[number] = at
                if starts[number][0] == label:
                    break
                mended = True
        else:
            mended = True
    for number in inner:
        ends[number] = at
    mended = mended or bool(inner) or at < full
    spans = [Span(label, a, b) for (label, a), b in zip(starts, ends, strict=True) if a < b]
    mended = mended or len(spans) < len(starts)
    if spans and spans[0][1:] == (0, at):
        spans[0] = Span(spans[0].label, 0, full)
    elif full:
        spans.insert(0, Span(TOP, 0, full))
        mended = True
    return Parse(Tree(tuple(words), tuple(tags or [WORD] * full), tuple(spans)), mended)
