"""Labelled brackets of constituency trees: precision, recall and F1, as EVALB counts them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformer.data.treebank import ROOTS, Span, Tree
from transformer.errors import UserError

PUNCTUATION = frozenset({",", ":", "``", "''", "."})  # tags of words that do not count
EQUAL = {"PRT": "ADVP"}  # labels that count as others


@dataclass(frozen=True)
class BracketScores:
    """A set of trees beside the right ones; shares are from 0 to 100, higher is better."""

    precision: float  # per cent of the brackets found that are right
    recall: float  # per cent of the right brackets that were found
    f1: float  # harmonic mean of these
    complete_match: float  # per cent of the sentences with all of their brackets, and no others
    mended: float  # per cent of the sentences whose tree was none as the model said it
    sentences: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, JSON-ready."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """A row a score for people to read: its name, its value, what exactly it is."""
        of_sentences = f"% of {self.sentences:,} sentences"
        rows = (
            ("precision", self.precision, "labelled brackets; as EVALB with COLLINS.prm"),
            ("recall", self.recall, ""),
            ("F1", self.f1, ""),
            ("complete", self.complete_match, f"{of_sentences}: all brackets right"),
            ("mended", self.mended, f"{of_sentences}: no tree as they came"),
        )
        return "\n".join(f"{name:<11}  {value:6.2f}  {note}".rstrip() for name, value, note in rows)


def score_brackets(trees: Sequence[Tree], right: Sequence[Tree], mended: int = 0) -> BracketScores:
    """Scores of a whole set, its brackets counted together (Black et al. 1991, "PARSEVAL").

    As EVALB (Sekine and Collins 1997) with COLLINS.prm, which AIAYN's Table 4 and its neighbours
    are scored with: no bracket around the sentence that treebanks call TOP; punctuation, by the
    right tree's tags, is taken out of the sentence, and what covers nothing else; PRT is ADVP;
    parts of speech do not count; as many brackets of one label over the same words as both have.

    Args:
        trees: what was found.
        right: the treebank's, in the same order.
        mended: how many of `trees` were mended, to be said with the scores.

    Raises:
        UserError: there is nothing to score, the two differ in number, or a sentence in its words.
    """
    if len(trees) != len(right):
        raise UserError(
            f"there are {len(trees)} trees for {len(right)} right ones: give one for each, in the "
            "same order"
        )
    if not right:
        raise UserError("there are no trees to score: give at least one and the right one")
    same = found = wanted = complete = 0
    for number, (tree, gold) in enumerate(zip(trees, right, strict=True), start=1):
        if tree.words != gold.words:
            raise UserError(
                f"tree {number} is of other words than the right one: {' '.join(tree.words)!r}, "
                f"not {' '.join(gold.words)!r}"
            )
        ours, theirs = _brackets(tree, gold.tags), _brackets(gold, gold.tags)
        same += (ours & theirs).total()
        found, wanted = found + ours.total(), wanted + theirs.total()
        complete += ours == theirs
    return BracketScores(
        precision=100.0 * same / max(found, 1),
        recall=100.0 * same / max(wanted, 1),
        f1=200.0 * same / max(found + wanted, 1),  # = 2 P R / (P + R)
        complete_match=100.0 * complete / len(right),
        mended=100.0 * mended / len(right),
        sentences=len(right),
    )


def _brackets(tree: Tree, tags: Sequence[str]) -> Counter[Span]:
    """The brackets that count, over the words that do."""
    places = [0]  # of each word among those
    for tag in tags:
        places.append(places[-1] + (tag not in PUNCTUATION))
    spans = (
        Span(EQUAL.get(label, label), places[start], places[end])
        for label, start, end in tree.spans
        if label not in ROOTS
    )
    return Counter(span for span in spans if span.start < span.end)
