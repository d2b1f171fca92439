"""Casa roja: what it says, that it says it one way, and that the splits keep their combinations."""

import importlib
import os
import re
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from transformer.data import casa_roja
from transformer.data.casa_roja import Clause, Phrase, lexicon
from transformer.data.casa_roja.grammar import Subject
from transformer.data.casa_roja.sentences import MAX_WORDS

ROOT = Path(__file__).parents[2]
WORDS: dict[str, Any] = {
    word.lemma: word
    for word in (*lexicon.NOUNS, *lexicon.ADJECTIVES, *lexicon.VERBS, *lexicon.DETERMINERS)
}
NOUN_FORMS = {form: noun.lemma for noun in lexicon.NOUNS for form in noun.spanish}
ADJECTIVE_FORMS = {form: word.lemma for word in lexicon.ADJECTIVES for form in word.spanish}
VERB_FORMS = {form: v.lemma for v in lexicon.VERBS for form in (*v.spanish, v.lemma)} | {
    verb.lemma + clitic: verb.lemma for verb in lexicon.TRANSITIVE for clitic in lexicon.CLITICS
}
OBJECT_VERBS = (*lexicon.TRANSITIVE, lexicon.GUSTAR, lexicon.HABER)
DETERMINER_FORMS = {form for determiner in lexicon.DETERMINERS for form in determiner.spanish}


def phrase(text: str, *, owner: Any = None) -> Phrase:
    """A phrase from its lemmas, e.g. "los: este dos casa muy rojo"."""
    number, _, lemmas = text.rpartition(": ")
    fields: dict[str, Any] = {"plural": number == "los", "owner": owner}
    for lemma in lemmas.split():
        word = WORDS.get(lemma)
        if isinstance(word, lexicon.Determiner):
            fields["count" if "determiner" in fields else "determiner"] = word
        elif isinstance(word, lexicon.Noun):
            fields["noun"] = word
        elif isinstance(word, lexicon.Adjective):
            fields["adjective"] = word
        else:
            fields["very"] = True
    return Phrase(**fields)


def clause(subject: Subject, verb: str, complement: Any = "", **more: Any) -> Clause:
    """A clause from the lemma of its verb."""
    return Clause(subject, WORDS[verb], complement, **more)


ANA, DIEGO = (next(p for p in lexicon.SINGLES if p.spanish == name) for name in ("Ana", "Diego"))
ANA_Y_DIEGO = next(people for people in lexicon.PEOPLE if people.names == ("Ana", "Diego"))
YO, YO_ELLA, TÚ, _, NOSOTROS, _, _, ELLA, _, ELLAS = lexicon.PRONOUNS
THERE_IS, THERE_ARE = lexicon.THERE
LIBRO, CASA, NIÑO, MESA = map(phrase, ("el libro", "el casa", "el niño", "el mesa"))
ROJO, TRISTE, ABIERTO = WORDS["rojo"], WORDS["triste"], WORDS["abierto"]


@pytest.mark.parametrize(
    ("tree", "spanish", "english"),
    [
        (phrase("el casa rojo"), "la casa roja", "the red house"),
        (phrase("los: el casa muy rojo"), "las casas muy rojas", "the very red houses"),
        (phrase("los: el lápiz azul"), "los lápices azules", "the blue pencils"),
        (phrase("los: el niño feliz"), "los niños felices", "the happy boys"),
        (phrase("un naranja"), "una naranja", "an orange"),
        (phrase("un libro viejo"), "un libro viejo", "an old book"),
        (phrase("un naranja muy grande"), "una naranja muy grande", "a very big orange"),
        (phrase("los: este dos mapa gris"), "estos dos mapas grises", "these two gray maps"),
        (phrase("los: tres mujer joven"), "tres mujeres jóvenes", "three young women"),
        (phrase("los: nuestro cuchillo"), "nuestros cuchillos", "our knives"),
        (phrase("cada tienda"), "cada tienda", "every shop"),
        (phrase("el libro", owner=ANA), "el libro de Ana", "Ana's book"),
        (phrase("el libro nuevo", owner=NIÑO), "el libro nuevo del niño", "the boy's new book"),
        (phrase("los: el dos libro", owner=phrase("los: mi niña triste")),
         "los dos libros de mis niñas tristes", "my sad girls' two books"),
        (phrase("el gato", owner=phrase("los: el mujer")), "el gato de las mujeres",
         "the women's cat"),
        (phrase("el gato", owner=phrase("el princesa")), "el gato de la princesa",
         "the princess's cat"),
        (clause(NOSOTROS, "leer", LIBRO), "leemos el libro", "we read the book"),
        (clause(TÚ, "mirar", LIBRO), "miras el libro", "you look at the book"),
        (clause(NIÑO, "mirar", LIBRO), "el niño mira el libro", "the boy looks at the book"),
        (clause(ANA, "leer", LIBRO, polarity="no"), "Ana no lee el libro",
         "Ana does not read the book"),
        (clause(ELLAS, "leer", LIBRO, polarity="nunca"), "ellas nunca leen el libro",
         "they never read the book"),
        (clause(ANA_Y_DIEGO, "llevar", MESA), "Ana y Diego llevan la mesa",
         "Ana and Diego carry the table"),
        (clause(NOSOTROS, "leer", "lo"), "lo leemos", "we read it"),
        (clause(NOSOTROS, "abrir", "las", polarity="no"), "no las abrimos", "we do not open them"),
        (clause(ANA, "leer", LIBRO, question=True), "¿lee Ana el libro?",
         "does Ana read the book?"),
        (clause(TÚ, "tener", "la", question=True), "¿la tienes?", "do you have it?"),
        (clause(YO, "saludar", NIÑO), "saludo al niño", "I greet the boy"),
        (clause(NOSOTROS, "esperar", DIEGO), "esperamos a Diego", "we wait for Diego"),
        (clause(YO, "leer", LIBRO, modal="querer"), "quiero leer el libro",
         "I want to read the book"),
        (clause(ANA, "leer", "lo", modal="querer", polarity="no"), "Ana no quiere leerlo",
         "Ana does not want to read it"),
        (clause(NOSOTROS, "dormir", modal="poder", polarity="no"), "no podemos dormir",
         "we cannot sleep"),
        (clause(NOSOTROS, "correr", modal="poder", polarity="siempre"), "siempre podemos correr",
         "we can always run"),
        (clause(ANA, "saludar", NIÑO, modal="ir", question=True), "¿va Ana a saludar al niño?",
         "is Ana going to greet the boy?"),
        (clause(CASA, "ser", ROJO), "la casa es roja", "the house is red"),
        (clause(phrase("los: el casa"), "ser", ROJO, very=True, polarity="no"),
         "las casas no son muy rojas", "the houses are not very red"),
        (clause(CASA, "ser", ROJO, question=True), "¿es la casa roja?", "is the house red?"),
        (clause(phrase("los: el puerta"), "estar", ABIERTO), "las puertas están abiertas",
         "the doors are open"),
        (clause(YO_ELLA, "estar", WORDS["cansado"]), "estoy cansada", "I am tired"),
        (clause(NOSOTROS, "estar", TRISTE, polarity="siempre"), "siempre estamos tristes",
         "we are always sad"),
        (clause(LIBRO, "estar", preposition="en", place=MESA), "el libro está en la mesa",
         "the book is on the table"),
        (clause(YO, "estar", preposition="cerca de", place=phrase("el hotel bonito")),
         "estoy cerca del hotel bonito", "I am near the pretty hotel"),
        (clause(ELLA, "dormir", preposition="en", place=phrase("el jardín"), time="por la noche"),
         "ella duerme en el jardín por la noche", "she sleeps in the garden at night"),
        (clause(THERE_ARE, "haber", phrase("los: dos libro rojo")), "hay dos libros rojos",
         "there are two red books"),
        (clause(THERE_IS, "haber", phrase("un niño"), question=True, preposition="en", place=CASA),
         "¿hay un niño en la casa?", "is there a boy in the house?"),
        (clause(YO, "gustar", CASA), "me gusta la casa", "I like the house"),
        (clause(NIÑO, "gustar", phrase("los: el pera"), polarity="no"),
         "al niño no le gustan las peras", "the boy does not like the pears"),
        (clause(ANA_Y_DIEGO, "gustar", CASA), "a Ana y a Diego les gusta la casa",
         "Ana and Diego like the house"),
        (clause(ANA, "gustar", CASA, question=True), "¿le gusta a Ana la casa?",
         "does Ana like the house?"),
        (clause(NOSOTROS, "tener", "hambre"), "tenemos hambre", "we are hungry"),
        (clause(ANA, "tener", "prisa", polarity="no"), "Ana no tiene prisa",
         "Ana is not in a hurry"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_says(tree: Clause | Phrase, spanish: str, english: str) -> None:
    assert (casa_roja.spanish(tree), casa_roja.english(tree)) == (spanish, english)


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    """The grammar without the checks of conftest.py, which make it 20 times slower."""
    folder = Path(casa_roja.__file__).parent
    package = sys.modules["plain"] = types.ModuleType("plain")
    package.__path__ = [str(folder)]
    yield importlib.import_module("plain.sentences")
    for name in ("plain", "plain.grammar", "plain.sentences"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def splits(plain) -> dict[str, list[tuple[str, str]]]:
    counts = {"train": 40_000, "dev": 4_000, "test": 4_000}
    return {split: plain.pairs(split, count) for split, count in counts.items()}


def test_each_spanish_sentence_has_one_english(plain) -> None:
    class Few(plain.Writer):
        """A writer of few words, so that what could be said in two ways soon is."""

        def pick(self, choices: Sequence[Any]) -> Any:
            different = list(dict.fromkeys(choices))
            few = different[:: max(1, len(different) // 4)]
            return super().pick(different if set(different) == set(plain.WEIGHTS) else few)

    meanings: dict[str, str] = {}
    for writer in (Few("test", 1), plain.Writer("test", 1)):
        for tree in (writer.tree() for _ in range(40_000)):
            source, target = plain.spanish(tree), plain.english(tree)
            assert meanings.setdefault(source, target) == target, source
    assert 50_000 < len(meanings) < 75_000  # and thousands were said again


def _seen(spanish: str) -> set[tuple[str, str]]:
    """The combinations of a sentence, from its words alone."""
    words = spanish.strip("¿?").split()
    nouns = [word for word in words if word in NOUN_FORMS]
    found = set()
    # A description ends with its adjective, has a copula, and says no place.
    places = {preposition.split()[0] for preposition in lexicon.PREPOSITIONS}
    described = {"ser", "estar"} & {VERB_FORMS.get(word) for word in words}
    described = bool(described) and places.isdisjoint(words)
    for i, word in enumerate(words):
        if word in ADJECTIVE_FORMS:
            before = words[i - 2] if words[i - 1] == "muy" else words[i - 1]
            if described and i == len(words) - 1:
                before = nouns[0] if nouns else ""  # an owner comes after the one described
            if before in NOUN_FORMS:
                found.add((NOUN_FORMS[before], ADJECTIVE_FORMS[word]))

    verbs = [VERB_FORMS[word] for word in words if word in VERB_FORMS]
    verbs = [verb for verb in verbs if verb in WORDS and WORDS[verb] in OBJECT_VERBS]
    for i, word in enumerate(words):
        if word not in NOUN_FORMS or not verbs:
            continue
        start = i
        while start and words[start - 1] in DETERMINER_FORMS:
            start -= 1
        before = words[start - 1] if start else ""
        human = "person" in WORDS[NOUN_FORMS[word]].kinds
        if human and verbs[0] != "haber":  # an object behind `a`, which `junto a` is not
            is_object = (
                before in ("a", "al") and verbs[0] != "gustar" and words[start - 2] != "junto"
            )
        else:
            is_object = before not in ("a", "al", "de", "del", "en")
        if is_object:
            found.add((NOUN_FORMS[word], verbs[0]))
    return found


def test_words_tell_the_combinations_of_a_tree(plain) -> None:
    writer = plain.Writer("test", 2)
    for tree in (writer.tree() for _ in range(20_000)):
        source = plain.spanish(tree)
        assert _seen(source) == set(plain.combinations(tree)), source


def test_splits_hold_out_combinations(splits) -> None:
    dev, test = casa_roja.held_out("dev"), casa_roja.held_out("test")
    assert ("casa", "rojo") in test
    assert dev.isdisjoint(test) and not casa_roja.held_out("train")
    assert all(0.04 < len(owned) / len(lexicon.COMBINATIONS) < 0.06 for owned in (dev, test))
    seen = {split: [_seen(source) for source, _ in pairs] for split, pairs in splits.items()}
    assert all(found.isdisjoint(dev | test) for found in seen["train"])
    assert all(found & dev and not found & test for found in seen["dev"])
    assert all(found & test and not found & dev for found in seen["test"])
    red_house = re.compile(r"\bcasas?( muy)? rojas?\b|^¿?(\w+ )+casas? (no |nunca )?(es|son) roja")
    assert not any(red_house.search(source) for source, _ in splits["train"])
    assert any(red_house.search(source) for source, _ in splits["test"])
    # Each is measured, and each word of it has been met.
    assert len(set().union(*seen["test"]) & test) > 0.95 * len(test)
    assert len(set().union(*seen["dev"]) & dev) > 0.95 * len(dev)
    met = Counter(
        lemma for found in seen["train"] for combination in found for lemma in combination
    )
    words = (*lexicon.NOUNS, *lexicon.ADJECTIVES, *OBJECT_VERBS)
    assert min(met[word.lemma] for word in words) > 100


def test_splits_share_no_sentence(splits) -> None:
    sources = Counter(source for pairs in splits.values() for source, _ in pairs)
    assert sources.total() == len(sources) == 48_000


def test_sentences_are_short_and_varied(splits) -> None:
    for side in (0, 1):
        lengths = [len(pair[side].split()) for pair in splits["train"]]
        assert 5.5 < sum(lengths) / len(lengths) < 7.5
        assert max(lengths) <= MAX_WORDS
    phrases = sum(
        VERB_FORMS.keys().isdisjoint(source.strip("¿?").split()) for source, _ in splits["train"]
    )
    assert 0.1 < phrases / len(splits["train"]) < 0.2


def test_a_dictionary_does_not_translate(splits) -> None:
    assert (
        casa_roja.word_for_word("¿no lee Ana los libros rojos?") == "not reads Ana the books red?"
    )
    assert casa_roja.word_for_word("leerlos") == "read them"
    pairs = splits["test"][:2_000]
    right = sum(casa_roja.word_for_word(source) == target for source, target in pairs)
    assert 0 < right / len(pairs) < 0.3
    known = {word for source, _ in splits["train"] for word in source.strip("¿?").split()}
    alike = {name for people in lexicon.SINGLES for name in people.names} | {
        "hotel",
        "hospital",
        "me",
    }
    assert {word for word in known if casa_roja.word_for_word(word) == word} == alike


def test_there_is_enough() -> None:
    assert len(set(casa_roja.LEMMAS)) == len(casa_roja.LEMMAS) >= 150
    assert casa_roja.count_pairs() >= 1_000_000


@pytest.mark.parametrize("split", casa_roja.SPLITS)
def test_count_is_that_of_an_enumeration(plain, split: str) -> None:
    verb, sentences = WORDS["cerrar"], set()
    words, owned = plain._vocabulary(split), plain.held_out(split)
    openings = [(d, many) for d in lexicon.DETERMINERS for many in (0, 1) if d.spanish[2 * many]]
    for (determiner, many), noun in product(openings, words[verb]):
        for adjective, very in [(None, False), *product(words[noun], (False, True))]:
            closed = plain.Phrase(noun, many, determiner, adjective=adjective, very=very)
            for subject, polarity in product((YO, TÚ, NOSOTROS), lexicon.POLARITIES):
                tree = plain.Clause(subject, verb, closed, polarity=polarity)
                if not owned or not owned.isdisjoint(plain.combinations(tree)):
                    sentences.add(plain.spanish(tree))
    assert len(sentences) == plain.count_pairs(split, [verb]) > 0


def test_no_form_belongs_to_two_words() -> None:
    owners: dict[str, set[str]] = {}
    content = (*lexicon.NOUNS, *lexicon.ADJECTIVES, *lexicon.VERBS, *lexicon.DETERMINERS)
    for word in content:
        for form in (*word.spanish, word.lemma):
            owners.setdefault(form, set()).add(word.lemma)
    owners.pop("")
    assert [form for form, lemmas in owners.items() if len(lemmas) > 1] == []
    assert not owners.keys() & {*lexicon.FEELINGS, "muy", "no", "siempre", "nunca", "hoy", "ahora"}


def test_pairs_are_a_function_of_their_arguments(plain, splits) -> None:
    program = "from transformer.data.casa_roja import pairs; print(pairs('dev', 200, seed=3))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs == [str(plain.pairs("dev", 200, seed=3))] * 2
    for split in casa_roja.SPLITS:
        assert plain.pairs(split, 500) == splits[split][:500]
        assert plain.pairs(split, 500, seed=1) != splits[split][:500]
    assert casa_roja.pairs("train", 100) == splits["train"][:100]
    assert casa_roja.pairs("train", 0) == []


def test_refuses_what_it_cannot_give() -> None:
    with pytest.raises(ValueError, match="no split 'valid'; its splits are train, dev, test"):
        casa_roja.pairs("valid", 1)
    with pytest.raises(ValueError, match="no split 'valid'"):
        casa_roja.held_out("valid")
    most = casa_roja.count_pairs("test")
    with pytest.raises(ValueError, match=f"0 to {most:,} pairs of 'test', not {most + 1:,}"):
        casa_roja.pairs("test", most + 1)
    with pytest.raises(ValueError, match="not -1"):
        casa_roja.pairs("train", -1)
