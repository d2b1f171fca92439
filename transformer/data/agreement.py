"""Right or wrong: Spanish sentences of casa roja's grammar, in half of which a word does not agree.

    la casa es roja                    right
    el casa es roja                    wrong: the article, in gender
    los libros de la niña son nuevo    wrong: the adjective, in number
    mis amigos come la sopa            wrong: the verb

One article, adjective or verb of a wrong sentence has another of its own forms, one that the
grammar would not write there. Every word of it comes in right sentences, too, so what tells them
apart is two words together, which may be far from each other (cf. Linzen et al. 2016).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from transformer.data.casa_roja import Clause, Phrase, combinations, count_pairs, held_out, spanish
from transformer.data.casa_roja.lexicon import GUSTAR, HABER, SHE, THEY, Adjective
from transformer.data.casa_roja.sentences import MAX_WORDS, Writer

RIGHT, WRONG = "right", "wrong"
GENDER, NUMBER = 1, 2  # bits of the index of a form: 2 * plural + feminine
SEED = 1  # another series of sentences than casa roja's own, which has 0


def pairs(split: str, count: int) -> list[tuple[str, str]]:
    """The first `count` sentences of a split, each with its label; no sentence comes twice.

    A pure function of its arguments. As of casa roja, every sentence of `dev` and `test` has a
    combination of words that training never shows. Raises ValueError as casa roja does.
    """
    owned, limit = held_out(split), count_pairs(split)
    if not 0 <= count <= limit:
        raise ValueError(f"agreement gives 0 to {limit:,} pairs of {split!r}, not {count:,}")
    writer = Writer(split, SEED)
    found: dict[str, str] = {}
    while len(found) < count:
        tree = writer.tree()
        right = spanish(tree)
        if right.count(" ") >= MAX_WORDS or (owned and owned.isdisjoint(combinations(tree))):
            continue
        # Sentences that cannot be wrong are left out, as they would give themselves away.
        wrong = sorted({spanish(altered) for altered in faults(tree)} - {right})
        if wrong:
            is_right = writer.random() < 0.5
            text, label = (right, RIGHT) if is_right else (writer.pick(wrong), WRONG)
            found.setdefault(text, label)
    return list(found.items())


def faults(tree: Any) -> Iterator[Any]:
    """The tree with one word in another form, each way; some may read like the tree itself."""
    match tree:
        case Phrase():
            agreement = 2 * tree.plural + tree.noun.feminine
            for bit in (GENDER, NUMBER):
                for name in ("determiner", "adjective"):
                    if (word := getattr(tree, name)) and word.spanish[agreement ^ bit]:
                        yield dataclasses.replace(tree, **{name: _bent(word, bit)})
            yield from _within(tree, "owner")
        case Clause(complement=complement, subject=subject, verb=verb):
            yield from _within(tree, "subject", "complement", "place")
            if isinstance(complement, Adjective):
                # Who says `estoy` may be a man or a woman.
                for bit in (GENDER, NUMBER) if spanish(subject) else (NUMBER,):
                    yield dataclasses.replace(tree, complement=_bent(complement, bit))
            # Without a subject any verb is right; and of these two the subject is another.
            if spanish(subject) and verb not in (GUSTAR, HABER):
                forms = list(verb.spanish)
                forms[SHE], forms[THEY] = forms[THEY], forms[SHE]
                bent = dataclasses.replace(verb, spanish=tuple(forms))
                yield dataclasses.replace(tree, verb=bent)


def _bent(word: Any, bit: int) -> Any:
    """The same entry with its forms changed places, of gender or of number."""
    forms = tuple(word.spanish[index ^ bit] for index in range(len(word.spanish)))
    return dataclasses.replace(word, spanish=forms)


def _within(tree: Any, *parts: str) -> Iterator[Any]:
    for name in parts:
        if isinstance(part := getattr(tree, name), Phrase):
            for altered in faults(part):
                yield dataclasses.replace(tree, **{name: altered})
