"""Trees of lexicon entries, and the two ways to say one: in Spanish and in English."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformer.data.casa_roja import lexicon
from transformer.data.casa_roja.lexicon import (
    Adjective,
    Determiner,
    Noun,
    People,
    Pronoun,
    Verb,
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun with what stands around it; in English an owner takes the determiner's place."""

    noun: Noun
    plural: bool
    determiner: Determiner
    count: Determiner | None = None
    adjective: Adjective | None = None
    very: bool = False
    owner: People | Phrase | None = None

    @property
    def person(self) -> int:
        return lexicon.THEY if self.plural else lexicon.SHE

    @property
    def feminine(self) -> bool:
        return self.noun.feminine


Subject = Pronoun | People | Phrase


@dataclass(frozen=True, slots=True)
class Clause:
    """A sentence with a verb; its strings are keys of the lexicon's tables.

    The verb says what its complement is: an adjective for `ser` and `estar` (or nothing, with a
    place), what there is for `haber`, what the subject likes for `gustar`, a feeling for `tener`,
    and for an action its object, if any: a phrase, people, or a clitic.
    """

    subject: Subject
    verb: Verb
    complement: Phrase | People | Adjective | str = ""
    very: bool = False
    modal: str = ""
    polarity: str = ""
    question: bool = False
    preposition: str = ""
    place: Phrase | None = None
    time: str = ""


def combinations(tree: Clause | Subject | Adjective | str | None) -> Iterator[tuple[str, str]]:
    """The (noun, adjective) and (object noun, verb) lemmas that a tree puts together."""
    if isinstance(tree, Phrase):
        if tree.adjective:
            yield tree.noun.lemma, tree.adjective.lemma
        yield from combinations(tree.owner)
    elif isinstance(tree, Clause):
        match tree.subject, tree.complement:
            case Phrase(noun=noun), Adjective(lemma=adjective):
                yield noun.lemma, adjective
            case _, Phrase(noun=noun):
                yield noun.lemma, tree.verb.lemma
        for part in (tree.subject, tree.complement, tree.place):
            yield from combinations(part)


def spanish(tree: Clause | Subject) -> str:
    """Say a tree in Spanish."""
    if isinstance(tree, Clause):
        return _spanish_clause(tree)
    return _spanish_phrase(tree) if isinstance(tree, Phrase) else tree.spanish


def _spanish_phrase(phrase: Phrase) -> str:
    agreement = 2 * phrase.plural + phrase.noun.feminine
    words = [phrase.determiner.spanish[agreement], phrase.noun.spanish[phrase.plural]]
    if phrase.count:
        words.insert(1, phrase.count.spanish[agreement])
    if phrase.adjective:
        words += ["muy"] * phrase.very + [phrase.adjective.spanish[agreement]]
    if phrase.owner:
        words.append(_after("de", phrase.owner))
    return " ".join(words)


def _after(preposition: str, tree: Subject) -> str:
    """A preposition and a tree: de + el is del, a + el is al, and each of two people has one."""
    if isinstance(tree, People):
        return " y ".join(f"{preposition} {name}" for name in tree.names)
    text = spanish(tree)
    if text.startswith("el ") and preposition[-1] in "ae":
        return f"{preposition}l {text[3:]}"
    return text and f"{preposition} {text}"


def _spanish_clause(clause: Clause) -> str:
    verb, complement = clause.verb, clause.complement
    subject, person, clitic = spanish(clause.subject), clause.subject.person, ""
    match complement:
        case str() if complement in lexicon.CLITICS:
            clitic, rest = complement, ""
        case str():
            rest = complement
        case Adjective():
            rest = complement.spanish[2 * (person > lexicon.SHE) + clause.subject.feminine]
            rest = f"muy {rest}" if clause.very else rest
        case Phrase() if verb is lexicon.GUSTAR:  # what is liked is the subject, who likes it not
            subject, clitic = _after("a", clause.subject), ("me", "te", "le", "nos", "les")[person]
            person, rest = complement.person, spanish(complement)
        case Phrase() if "person" not in complement.noun.kinds or verb is lexicon.HABER:
            rest = spanish(complement)
        case _:  # people as objects stand behind an `a`
            rest = _after("a", complement)
    if clause.modal:
        rest = f"{'a ' * (clause.modal == 'ir')}{verb.lemma}{clitic} {rest}".rstrip()
        verb, clitic = lexicon.MODALS[clause.modal], ""
    core = [clause.polarity, clitic, verb.spanish[person]]
    words = [*core, subject] if clause.question else [subject, *core]
    place = clause.place and _after(clause.preposition, clause.place)
    text = " ".join(filter(None, [*words, rest, place, clause.time]))
    return f"¿{text}?" if clause.question else text


def english(tree: Clause | Subject) -> str:
    """Say a tree in English."""
    if isinstance(tree, Clause):
        return _english_clause(tree)
    return _english_phrase(tree) if isinstance(tree, Phrase) else tree.english


def _english_phrase(phrase: Phrase) -> str:
    words = [phrase.noun.english[phrase.plural]]
    if phrase.adjective:
        words = ["very"] * phrase.very + [phrase.adjective.english, *words]
    if phrase.count:
        words.insert(0, phrase.count.english[1])
    if phrase.owner:
        owner = english(phrase.owner)
        many = phrase.owner.person == lexicon.THEY and owner[-1] == "s"
        opening = owner + ("'" if many else "'s")  # the girls', the men's, the princess's
    else:
        opening = phrase.determiner.english[phrase.plural]
        opening += "n" * (opening == "a" and words[0][0] in "aeiou")
    return " ".join([opening, *words])


def _english_clause(clause: Clause) -> str:
    verb, complement = clause.verb, clause.complement
    subject, person, place = english(clause.subject), clause.subject.person, ""
    match complement:
        case str():
            rest = lexicon.CLITICS.get(complement) or lexicon.FEELINGS.get(complement, "")
            verb = lexicon.SER if complement in lexicon.FEELINGS else verb
        case Adjective():
            rest = f"very {complement.english}" if clause.very else complement.english
        case _:
            rest = english(complement)
    if clause.modal:
        link = {"querer": "to ", "poder": "", "ir": "going to "}[clause.modal]
        rest = f"{link}{verb.base} {rest}".rstrip()
        verb = lexicon.SER if clause.modal == "ir" else lexicon.MODALS[clause.modal]
    adverb, auxiliary, finite = lexicon.POLARITIES[clause.polarity], "", verb.english[person]
    if verb.base in ("be", "can"):
        auxiliary, finite = finite, ""
    elif clause.question or adverb == "not":
        auxiliary, finite = "does" if person == lexicon.SHE else "do", verb.base
    words = [auxiliary, subject] if clause.question else [subject, auxiliary]
    if clause.place:
        on = "on" if "on" in clause.place.noun.kinds else "in"
        place = f"{lexicon.PREPOSITIONS[clause.preposition] or on} {english(clause.place)}"
    time = lexicon.TIMES.get(clause.time)
    text = " ".join(filter(None, [*words, adverb, finite, rest, place, time]))
    return f"{text}?" if clause.question else text.replace("can not ", "cannot ")
