"""Which sentences there are: how they are drawn, and which combinations each split holds out."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

from transformer.data.casa_roja import lexicon
from transformer.data.casa_roja.lexicon import Adjective, Determiner, Noun, Verb

from .grammar import Clause, Phrase, Subject, combinations, english, spanish

SPLITS = ("train", "dev", "test")
MAX_WORDS = 14

# How often each construction is drawn.
WEIGHTS = {
    "phrase": 16,  # la casa roja: the red house
    "transitive": 34,  # leemos el libro: we read the book; lo leemos: we read it
    "intransitive": 8,  # Ana duerme en la cama: Ana sleeps on the bed
    "description": 16,  # la casa es roja: the house is red
    "location": 7,  # las llaves están en la caja: the keys are in the box
    "existence": 7,  # hay dos libros rojos: there are two red books
    "liking": 9,  # me gusta la sopa: I like the soup
    "feeling": 3,  # tenemos hambre: we are hungry
}
# How often a phrase or a clause has each of these where it can.
CHANCES = {
    "plural": 0.35, "count": 0.15, "adjective": 0.5, "very": 0.12, "owner": 0.15, "clitic": 0.2,
    "modal": 0.2, "question": 0.2, "polarity": 0.4, "place": 0.25, "time": 0.1,
}  # fmt: skip


@functools.cache
def _owners() -> dict[tuple[str, str], str]:
    """The split that each combination belongs to; one in twenty is for dev, and one for test."""
    owners = {}
    for noun, other in lexicon.COMBINATIONS:
        digest = hashlib.sha256(f"{noun.lemma} {other.lemma}".encode()).digest()
        owners[noun.lemma, other.lemma] = {0: "dev", 1: "test"}.get(digest[0] % 20, "train")
    return owners | {("casa", "rojo"): "test"}  # the emblem of the project is never trained on


def held_out(split: str) -> frozenset[tuple[str, str]]:
    """The (noun, adjective) and (object, verb) lemmas that only this split shows; train has none.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"casa roja has no split {split!r}; its splits are {', '.join(SPLITS)}")
    owned = (combination for combination, owner in _owners().items() if owner == split)
    return frozenset(owned) if split != "train" else frozenset()


@functools.cache
def _vocabulary(split: str) -> dict[Noun | Verb, list]:
    """The adjectives for each noun and the objects for each verb that a split may use."""
    words: dict[Noun | Verb, list] = {}
    for noun, other in lexicon.COMBINATIONS:
        if _owners()[noun.lemma, other.lemma] in ("train", split):
            key, value = (noun, other) if isinstance(other, Adjective) else (other, noun)
            words.setdefault(key, []).append(value)
    return words


def pairs(split: str, count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """The first `count` different (Spanish, English) pairs of a split.

    A pure function of its arguments; a larger count starts with the pairs of a smaller one. Every
    pair of `dev` and `test` has a combination that the split holds out. Raises ValueError for an
    unknown split and for a count that is negative or above `count_pairs(split)`.
    """
    owned, limit = held_out(split), count_pairs(split)
    if not 0 <= count <= limit:
        raise ValueError(f"casa roja gives 0 to {limit:,} pairs of {split!r}, not {count:,}")
    writer = Writer(split, seed)
    found: dict[str, str] = {}
    while len(found) < count:
        tree = writer.tree()
        if owned and owned.isdisjoint(combinations(tree)):
            continue
        source, target = spanish(tree), english(tree)
        if max(source.count(" "), target.count(" ")) < MAX_WORDS:
            found.setdefault(source, target)
    return list(found.items())


def count_pairs(split: str = "train", verbs: Iterable[Verb] = lexicon.TRANSITIVE) -> int:
    """A lower bound of a split's pairs: the number of those like `no leemos tus libros nuevos`.

    A subject left out, a polarity, a verb, an object's determiner and number, and an adjective with
    or without `muy` or none: each choice has its own words at its own place.
    """
    openings = sum(bool(d.spanish[0]) + bool(d.spanish[2]) for d in lexicon.DETERMINERS)

    def objects(split: str) -> int:
        words = _vocabulary(split)
        return sum(1 + 2 * len(words[noun]) for verb in verbs for noun in words[verb])

    # Dev and test may use what train uses, but a sentence of nothing else is not theirs.
    shared = objects("train") if split != "train" else 0
    return 3 * len(lexicon.POLARITIES) * openings * (objects(split) - shared)


def _determiners(*kinds: str) -> list[Determiner]:
    """Those of some kinds, each as often as its weight."""
    return [d for d in lexicon.DETERMINERS for _ in range(d.weight) if d.kind in kinds]


_CONSTRUCTIONS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
_DEFINITE, _INDEFINITE = _determiners("definite"), _determiners("indefinite", "number")
_DETERMINERS = [*_DEFINITE, *_INDEFINITE, *_determiners("other")]
_PREPOSITIONS = ["en"] * 8 + list(lexicon.PREPOSITIONS)
_CLITICS, _MODALS = list(lexicon.CLITICS), list(lexicon.MODALS)
_TIMES, _FEELINGS = list(lexicon.TIMES), list(lexicon.FEELINGS)


class Writer:
    """Draws trees from the combinations that a split may use; each construction is a method."""

    def __init__(self, split: str, seed: int) -> None:
        # A string seeds alike in every process; `hash` would not.
        self.random = random.Random(f"casa roja {split} {seed}").random
        self.words = _vocabulary(split)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.random() * len(choices))]

    def has(self, what: str) -> bool:
        return self.random() < CHANCES[what]

    def tree(self) -> Clause | Phrase:
        return getattr(self, self.pick(_CONSTRUCTIONS))()

    def phrase(
        self,
        nouns: Sequence[Noun] = lexicon.NOUNS,
        determiners: Sequence[Determiner] = _DETERMINERS,
        ownable: bool = True,
    ) -> Phrase:
        noun, determiner = self.pick(nouns), self.pick(determiners)
        one, _, many, _ = determiner.spanish
        plural = many != "" and (one == "" or self.has("plural"))
        counted = plural and determiner.kind == "definite" and self.has("count")
        count = self.pick(lexicon.NUMBERS) if counted else None
        adjective = self.pick(self.words[noun]) if self.has("adjective") else None
        very = adjective is not None and self.has("very")
        owner = None
        if ownable and determiner.lemma == "el" and self.has("owner"):
            owner = self.phrase(lexicon.HUMANS, _DEFINITE, ownable=False)
            owner = self.pick([owner, self.pick(lexicon.SINGLES)])
        return Phrase(noun, plural, determiner, count, adjective, very, owner)

    def someone(self) -> Subject:
        draw = self.random()
        if draw < 0.5:
            return self.pick(lexicon.PRONOUNS)
        return self.pick(lexicon.PEOPLE) if draw < 0.65 else self.phrase(lexicon.HUMANS)

    def clause(self, subject: Subject, verb: Verb, complement: Any = "", **more) -> Clause:
        polarity = self.pick(["no", "no", "siempre", "nunca"]) if self.has("polarity") else ""
        more.update(polarity=polarity, question=self.has("question"))
        return Clause(subject, verb, complement, **more)

    def scene(self, *, placed: bool = False) -> dict[str, Any]:
        place = self.phrase(lexicon.PLACES, _DEFINITE) if placed or self.has("place") else None
        time = self.pick(_TIMES) if self.has("time") else ""
        return {"preposition": self.pick(_PREPOSITIONS), "place": place, "time": time}

    def action(self, subject: Subject, verb: Verb, target: Any = "") -> Clause:
        modal = self.pick(_MODALS) if self.has("modal") else ""
        return self.clause(subject, verb, target, modal=modal, **self.scene())

    def transitive(self) -> Clause:
        verb = self.pick(lexicon.TRANSITIVE)
        short = lexicon.SINGLES if "person" in verb.kinds else _CLITICS
        target = self.pick(short) if self.has("clitic") else self.phrase(self.words[verb])
        return self.action(self.someone(), verb, target)

    def intransitive(self) -> Clause:
        verb = self.pick(lexicon.INTRANSITIVE)
        animal = "animal" in verb.kinds and self.random() < 0.5
        return self.action(self.phrase(lexicon.ANIMALS) if animal else self.someone(), verb)

    def description(self) -> Clause:
        # Definite: "¿es un libro viejo?" would also ask whether it is an old book.
        someone = self.pick(self.pick([lexicon.PRONOUNS, lexicon.PEOPLE]))
        subject = someone if self.random() < 0.2 else self.phrase(determiners=_DEFINITE)
        noun = subject.noun if isinstance(subject, Phrase) else None
        adjective = self.pick(self.words[noun] if noun else lexicon.HUMAN_ADJECTIVES)
        return self.clause(subject, adjective.copula, adjective, very=self.has("very"))

    def location(self) -> Clause:
        subject = self.someone() if self.random() < 0.3 else self.phrase(lexicon.MOVABLE, _DEFINITE)
        return self.clause(subject, lexicon.ESTAR, **self.scene(placed=True))

    def existence(self) -> Clause:
        there = self.phrase(self.words[lexicon.HABER], _INDEFINITE)
        return self.clause(lexicon.THERE[there.plural], lexicon.HABER, there, **self.scene())

    def liking(self) -> Clause:
        liked = self.phrase(self.words[lexicon.GUSTAR], _DEFINITE)
        return self.clause(self.someone(), lexicon.GUSTAR, liked)

    def feeling(self) -> Clause:
        return self.clause(self.someone(), lexicon.TENER, self.pick(_FEELINGS))
