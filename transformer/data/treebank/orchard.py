"""Orchard: a grammar that grows English sentences with their trees, to learn parsing from.

Brackets as the Penn Treebank has them, words of casa roja's and some more. Every sentence has one
right tree, and where a phrase with a preposition belongs is for its words to say, not for their
parts of speech:

    she draws (the girl) (with the pen)     to the verb: one draws with a pen;
    she hugs (the girl (with the pen))      to the noun: one does not hug with a pen
    we read (the book) (in the park)        to the verb: what is read can be there and elsewhere;
    we see (the hotel (in the park))        to the noun: buildings and areas stay where they are

What follows a relative clause or a `that` is within it. A noun and the one that a preposition
brings after it belong to one split each: where the test data has a girl with a pen, the training
data has girls with other things, and others with pens, but not these two.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Any

from transformer.data.casa_roja import lexicon
from transformer.data.casa_roja.lexicon import SHE, THEY, Noun, Verb
from transformer.data.treebank.penn import read_text
from transformer.data.treebank.tree import Tree

SPLITS = ("train", "dev", "test")
MAX_WORDS = 20

# Verbs, the kinds of nouns that are their objects, and what it is done with.
_VERBS = {
    "see": ("person animal building item", "telescope mirror"),
    "draw": ("person animal building item", "pencil pen brush"),
    "paint": ("person building item", "brush sponge"),
    "find": ("person animal item text", "telescope stick"),
    "buy": ("item text food animal building", "coin"),
    "greet": ("person", "hat"),
    "help": ("person", ""),
    "hug": ("person animal", ""),
    "visit": ("building area", ""),
    "eat": ("food", "spoon fork knife"),
    "prepare": ("food", "spoon knife"),
    "taste": ("food", "spoon fork"),
    "open": ("opens", "key knife stick"),
    "close": ("opens", "key stick"),
    "break": ("item", "hammer stick knife"),
    "wash": ("item", "sponge brush"),
    "write": ("text", "pencil pen"),
    "read": ("text", "mirror"),
}
# What nouns of a kind are seen with.
_FEATURES = {
    "person": """hat coat dress shirt skirt guitar suitcase telescope mirror pencil pen brush
        sponge stick coin spoon fork knife key hammer""",
    "building": "door window garden kitchen tower",
    "food": "cheese onion tomato egg lemon strawberry spoon fork",
    "opens": "letter map coin key pencil hat",
    "text": "map flower coin pen",
}
_SAYING = {"say": "says", "think": "thinks", "know": "knows", "hope": "hopes"}
_OF = ("afraid", "tired", "proud", "fond")  # of somebody
_BECAUSE = ("because", "if", "although")
_PLACES = ("near", "under", "behind", "in", "in", "in")
_MODALS = ("can", "must", "will")
_SUBJECTS = {"I": 0, "you": 1, "he": SHE, "she": SHE, "we": 3, "they": THEY}
_BE = ("am", "are", "is", "are", "are")
_TIMES = ("(ADVP (RB now))", "(ADVP (RB here))", "(NP (NN today))", "(NP (DT every) (NN day))")
_DETERMINERS = ("DT the", "DT the", "DT the", "DT this", "PRP$ my", "PRP$ her")  # of one
_ALL_DETERMINERS = (*_DETERMINERS, "DT a", "DT a")

# How often a phrase or a clause has each of these where it can.
CHANCES = {
    "plural": 0.25, "adjective": 0.4, "very": 0.2, "of": 0.1, "with": 0.5, "tool": 0.5,
    "place": 0.4, "time": 0.15, "relative": 0.15, "because": 0.12, "modal": 0.15, "not": 0.15,
    "question": 0.12,
}  # fmt: skip
# And how often a clause is of each kind.
WEIGHTS = {"transitive": 60, "intransitive": 10, "description": 12, "location": 6, "saying": 12}

_KINDS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
_TRANSITIVE = [verb for verb in lexicon.TRANSITIVE if verb.base in _VERBS]
_INTRANSITIVE = [verb for verb in lexicon.INTRANSITIVE if "person" in verb.kinds]
_NAMES = [people.english for people in lexicon.SINGLES]


def split_of(before: str, after: str) -> str:
    """The split that has these two nouns around a preposition; one in sixteen is for dev or test.

    Args:
        before: in the singular, as is `after`.
        after: the noun that the preposition brings.
    """
    digest = hashlib.sha256(f"orchard {before} {after}".encode()).digest()
    return {0: "dev", 1: "test"}.get(digest[0] % 16, "train")


def trees(split: str, count: int, *, seed: int = 0) -> list[Tree]:
    """The first `count` trees of a split, of different sentences.

    A pure function of its arguments; a larger count starts with the trees of a smaller one. Every
    tree of `dev` and `test` has a pair of nouns that the training set has not. Raises ValueError
    for an unknown split and for a count that is negative or above `count_trees(split)`.
    """
    limit = count_trees(split)
    if not 0 <= count <= limit:
        raise ValueError(f"orchard gives 0 to {limit:,} trees of {split!r}, not {count:,}")
    writer, found = _Writer(split, seed), {}
    while len(found) < count:
        text, splits = writer.sentence()
        if splits <= {split, "train"} and (split == "train" or split in splits):
            (tree,) = read_text(text)
            if len(tree.words) <= MAX_WORDS:
                found.setdefault(tree.words, tree)
    return list(found.values())


@functools.cache
def count_trees(split: str) -> int:
    """A lower bound: sentences like `Ana sees the hotel with this window .`, with four determiners.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"orchard has no split {split!r}; its splits are {', '.join(SPLITS)}")
    chosen = sum(
        split_of(noun.english[0], feature) == split
        for verb in _TRANSITIVE
        for noun in _objects(verb.base)
        for feature in _features(noun)
    )
    return len(_NAMES) * chosen * len(set(_DETERMINERS)) ** 2


@functools.cache
def _objects(verb: str) -> tuple[Noun, ...]:
    kinds = set(_VERBS[verb][0].split())
    return tuple(noun for noun in lexicon.NOUNS if noun.kinds & kinds)


@functools.cache
def _features(noun: Noun) -> tuple[str, ...]:
    listed = " ".join(_FEATURES[kind] for kind in sorted(noun.kinds) if kind in _FEATURES)
    return tuple(dict.fromkeys(word for word in listed.split() if word != noun.english[0]))


@functools.cache
def _adjectives(noun: Noun) -> tuple[str, ...]:
    return tuple(a.english for a in lexicon.ADJECTIVES if a.kinds & noun.kinds)


def _bracket(label: str, *parts: str) -> str:
    return f"({label} {' '.join(filter(None, parts))})"


class _Writer:
    """Draws bracketed sentences; each method gives one or more constituents as text."""

    def __init__(self, split: str, seed: int) -> None:
        # A string seeds alike in every process; `hash` would not.
        self.random = random.Random(f"orchard {split} {seed}").random
        self.splits: set[str] = set()  # of the pairs of nouns in the sentence that is being drawn

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.random() * len(choices))]

    def has(self, what: str) -> bool:
        return self.random() < CHANCES[what]

    def sentence(self) -> tuple[str, set[str]]:
        """A tree, and the splits that have its pairs of nouns."""
        self.splits = set()
        subject, person = self.subject()
        if self.has("question"):
            verb = self.pick(_TRANSITIVE)
            does = _bracket("VBZ", "does") if person == SHE else _bracket("VBP", "do")
            inner = _bracket("VP", _bracket("VB", verb.base), self.about(verb.base, simple=True)[0])
            return _bracket("SQ", does, subject, inner, "(. ?)"), self.splits
        return _bracket("S", subject, self.predicate(person), "(. .)"), self.splits

    def clause(self) -> str:
        """Within a sentence, and with no clause in it."""
        subject, person = self.subject(simple=True)
        return _bracket("S", subject, self.predicate(person, simple=True))

    def subject(self, simple: bool = False) -> tuple[str, int]:
        """And its person."""
        draw = self.random()
        if draw < 0.3:
            word = self.pick(list(_SUBJECTS))
            return _bracket("NP", f"(PRP {word})"), _SUBJECTS[word]
        if draw < 0.5:
            return _bracket("NP", f"(NNP {self.pick(_NAMES)})"), SHE
        noun, plural = self.pick(lexicon.HUMANS), self.has("plural")
        phrase, person = self.phrase(noun, plural), THEY if plural else SHE
        if simple:
            return phrase, person
        if self.has("relative"):
            return self.relative(phrase, person), person
        if self.has("with"):
            return self.around(phrase, noun, "with", self.pick(_features(noun))), person
        return phrase, person

    def phrase(self, noun: Noun | str, plural: bool = False) -> str:
        """A noun with what stands before it."""
        one, many = noun.english if isinstance(noun, Noun) else (noun, "")
        adjectives = _adjectives(noun) if isinstance(noun, Noun) else ()
        adjective, very = "", ""
        if adjectives and self.has("adjective"):
            adjective = _bracket("JJ", self.pick(adjectives))
            if self.has("very"):
                very = adjective = _bracket("ADJP", "(RB very)", adjective)
        tag, word = self.pick(_DETERMINERS if plural else _ALL_DETERMINERS).split()
        first = "very" if very else (adjective or f"(NN {one})").split()[1]
        word = "these" if plural and word == "this" else word
        word = "an" if word == "a" and first[0] in "aeiou" else word
        head = _bracket("NNS", many) if plural else _bracket("NN", one)
        return _bracket("NP", f"({tag} {word})", adjective, head)

    def around(self, phrase: str, noun: Noun, preposition: str, after: Noun | str) -> str:
        """A noun phrase with another that a preposition brings."""
        return _bracket("NP", phrase, self.preposition(noun, preposition, after))

    def preposition(self, before: Noun | None, preposition: str, after: Noun | str) -> str:
        word = after.english[0] if isinstance(after, Noun) else after
        if before:
            self.splits.add(split_of(before.english[0], word))
        return _bracket("PP", f"(IN {preposition})", self.phrase(after))

    def place(self, before: Noun | None) -> str:
        noun, preposition = self.pick(lexicon.PLACES), self.pick(_PLACES)
        preposition = "on" if preposition == "in" and "on" in noun.kinds else preposition
        return self.preposition(before, preposition, noun)

    def relative(self, phrase: str, person: int) -> str:
        inner = _bracket("S", self.predicate(person, simple=True))
        return _bracket("NP", phrase, _bracket("SBAR", "(WHNP (WDT that))", inner))

    def predicate(self, person: int, simple: bool = False) -> str:
        """A verb phrase; a simple one has no clause in it."""
        kind = self.pick(_KINDS)
        if kind == "saying" and not simple:
            base = self.pick(list(_SAYING))
            finite = _bracket("VBZ", _SAYING[base]) if person == SHE else _bracket("VBP", base)
            return _bracket("VP", finite, _bracket("SBAR", "(IN that)", self.clause()))
        if kind in ("description", "location"):
            rest = self.description() if kind == "description" else self.place(None)
            be = _bracket("VBZ" if person == SHE else "VBP", _BE[person])
            return _bracket("VP", be, "(RB not)" if self.has("not") else "", rest)
        if kind == "intransitive":
            verb, ends = self.pick(_INTRANSITIVE), False
            rest = self.place(None) if self.has("place") else ""
        else:
            verb = self.pick(_TRANSITIVE)
            rest, ends = self.about(verb.base, simple)
        if not ends and self.has("time"):
            rest = f"{rest} {self.pick(_TIMES)}".lstrip()
        if not ends and not simple and self.has("because"):
            because = _bracket("SBAR", f"(IN {self.pick(_BECAUSE)})", self.clause())
            rest = f"{rest} {because}".lstrip()
        return self.verb(verb, person, rest)

    def verb(self, verb: Verb, person: int, rest: str) -> str:
        does = _bracket("VBZ", "does") if person == SHE else _bracket("VBP", "do")
        inner = _bracket("VP", _bracket("VB", verb.base), rest)
        if self.has("modal"):
            return _bracket("VP", f"(MD {self.pick(_MODALS)})", inner)
        if self.has("not"):
            return _bracket("VP", does, "(RB not)", inner)
        finite = _bracket("VBZ" if person == SHE else "VBP", verb.english[person])
        return _bracket("VP", finite, rest)

    def about(self, verb: str, simple: bool) -> tuple[str, bool]:
        """An object, with what belongs to it or to the verb; and whether a clause ends it."""
        noun, plural = self.pick(_objects(verb)), self.has("plural")
        phrase, person = self.phrase(noun, plural), THEY if plural else SHE
        if "person" in noun.kinds and not simple and self.has("relative"):
            return self.relative(phrase, person), True
        if "person" not in noun.kinds and self.has("of"):
            return self.around(phrase, noun, "of", self.pick(lexicon.HUMANS)), False
        stays, others = bool(noun.kinds & {"building", "area"}), []
        placed = self.has("place")
        tools = _VERBS[verb][1].split()
        features = [word for word in _features(noun) if word not in tools]
        if self.has("with") and (tools or features):
            if tools and (self.has("tool") or not features):
                others.append(self.preposition(noun, "with", self.pick(tools)))
            else:
                phrase = self.around(phrase, noun, "with", self.pick(features))
            placed = placed and not stays  # what would be there, the house or its garden?
        if placed and stays:
            phrase = _bracket("NP", phrase, self.place(noun))
        elif placed:
            others.append(self.place(noun))
        return " ".join([phrase, *others]), False

    def description(self) -> str:
        adjective = _bracket("JJ", self.pick(lexicon.HUMAN_ADJECTIVES).english)
        if self.has("of"):
            of = self.preposition(None, "of", self.pick(lexicon.HUMANS))
            return _bracket("ADJP", _bracket("JJ", self.pick(_OF)), of)
        return _bracket("ADJP", "(RB very)" if self.has("very") else "", adjective)
