"""The words of Casa roja: each lemma with all its Spanish forms and their English.

Tables are plain text, one lemma per entry; regular forms follow rules and the others are listed.
No two lemmas share a Spanish form, so `lava` can only be a washing and `limpia` only a clean one;
words that would break this (`limpiar`, `cocinar`, `frío` as something one has) are left out.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

SHE, THEY = 2, 4  # the persons yo, tú, ella, nosotros, ellas count the forms of a verb

# Nouns by kind: article, noun, English, then what else they are: `in` or `on` is how English says
# `en` before them, `opens` is what can be opened and closed.
_NOUNS = {
    "person": """el niño boy, la niña girl, el hombre man, la mujer woman, el médico doctor,
        la maestra teacher, la enfermera nurse, el camarero waiter, el cocinero cook,
        la pintora painter, la reina queen, el rey king, la abogada lawyer, el amigo friend,
        el soldado soldier, el ladrón thief, la princesa princess""",
    "animal": """el gato cat, el perro dog, el caballo horse, el pájaro bird, la vaca cow,
        el ratón mouse, el conejo rabbit, el pato duck, el zorro fox, el oso bear""",
    "food": """la manzana apple, la naranja orange, el pastel cake, el tomate tomato,
        la cebolla onion, el huevo egg, el queso cheese, la sopa soup, la ensalada salad,
        la galleta cookie, la patata potato, el limón lemon, la pera pear, la fresa strawberry""",
    "text": """el libro book, la carta letter, el periódico newspaper, la revista magazine,
        la novela novel, el poema poem, el cuento story""",
    "item": """la mesa table on, la silla chair on, la cama bed on, el sofá sofa on,
        el plato plate on, el coche car in, el barco boat in, la taza cup in, la bicicleta bicycle,
        la llave key, el reloj clock, la lámpara lamp, el espejo mirror, el cuchillo knife,
        la cuchara spoon, la camisa shirt, el zapato shoe, el sombrero hat, el vestido dress,
        la falda skirt, el abrigo coat, la flor flower, el lápiz pencil, la pelota ball,
        la guitarra guitar, el mapa map, la moneda coin, la caja box in opens,
        la maleta suitcase in opens, el bolso bag in opens, la botella bottle opens,
        la puerta door opens, la ventana window opens""",
    "building": """la casa house in, la escuela school in, la tienda shop in, la iglesia church in,
        el hospital hospital in, el museo museum in, la biblioteca library in, la torre tower in,
        el hotel hotel in, el castillo castle in, la cocina kitchen in, la oficina office in,
        la habitación room in, el puente bridge on""",
    "area": """el jardín garden in, el parque park in, la calle street in, la plaza square in,
        la ciudad city in, el pueblo village in, el bosque forest in, la playa beach on,
        la isla island on, la montaña mountain on""",
}

# Adjectives by copula and by the kinds of nouns that take them.
_ADJECTIVES = {
    "ser: item text animal food building": """rojo red, azul blue, verde green, negro black,
        blanco white, amarillo yellow, gris gray, marrón brown""",
    "ser: item text animal food building area person": "grande big, pequeño small, extraño strange",
    "ser: item text animal building area person": "viejo old, feo ugly",
    "ser: item text animal building area": "bonito pretty",
    "ser: item text building": "nuevo new, moderno modern, caro expensive, elegante elegant",
    "ser: text building area person": "famoso famous, importante important",
    "ser: text building area": "interesante interesting",
    "ser: item text food": "barato cheap, ligero light, pesado heavy",
    "ser: person building": "alto tall",
    "ser: person animal": "joven young, feliz happy, fuerte strong, inteligente intelligent",
    "ser: person": "amable kind, serio serious, pobre poor",
    "ser: food": "delicioso delicious, dulce sweet, amargo bitter",
    "estar: food": "frío cold, caliente hot",
    "estar: item": "roto broken",
    "estar: item animal building area": "sucio dirty, limpio clean",
    "estar: building area": "vacío empty",
    "estar: opens building": "abierto open, cerrado closed",
    "estar: person animal": "cansado tired, enfermo sick, triste sad",
}

# Verbs by their objects, and those that take none by their subjects.
_TRANSITIVE = {
    "item text food animal": """comprar buy, vender sell, buscar look_for, encontrar find,
        tener have, necesitar need, perder lose, traer bring""",
    "item text food animal building area": "mirar look_at, ver see, dibujar draw",
    "item text": "llevar carry, esconder hide",
    "item": "lavar wash, romper break, usar use",
    "item building": "pintar paint",
    "text": "leer read, escribir write",
    "food": "comer eat, preparar prepare, probar taste",
    "opens": "abrir open, cerrar close",
    "building area": "visitar visit",
    "person": """saludar greet, ayudar help, abrazar hug, llamar call, invitar invite,
        esperar wait_for, escuchar listen_to, seguir follow""",
}
_INTRANSITIVE = {
    "person": "trabajar work, cantar sing, bailar dance, viajar travel, vivir live, llorar cry",
    "person animal": """dormir sleep, correr run, nadar swim, jugar play, descansar rest,
        saltar jump""",
}
_MODALS = {"": "querer want, poder can, ir go"}
_OTHER_VERBS = {
    "": "ser be, estar be",
    "item text food animal building area": "gustar like",
    "item text food animal building area person": "haber be",
}

_PRESENT = {  # yo, tú, ella, nosotros, ellas
    "encontrar": "encuentro encuentras encuentra encontramos encuentran",
    "tener": "tengo tienes tiene tenemos tienen",
    "perder": "pierdo pierdes pierde perdemos pierden",
    "traer": "traigo traes trae traemos traen",
    "ver": "veo ves ve vemos ven",
    "probar": "pruebo pruebas prueba probamos prueban",
    "cerrar": "cierro cierras cierra cerramos cierran",
    "seguir": "sigo sigues sigue seguimos siguen",
    "dormir": "duermo duermes duerme dormimos duermen",
    "jugar": "juego juegas juega jugamos juegan",
    "querer": "quiero quieres quiere queremos quieren",
    "poder": "puedo puedes puede podemos pueden",
    "ir": "voy vas va vamos van",
    "ser": "soy eres es somos son",
    "estar": "estoy estás está estamos están",
    "haber": "hay hay hay hay hay",  # has no person when it means "there is"
    "be": "am are is are are",
    "have": "have have has have have",
    "can": "can can can can can",
}
_ENDINGS = {"ar": "o as a amos an", "er": "o es e emos en", "ir": "o es e imos en"}
_PLURALS = {
    "joven": "jóvenes", "man": "men", "woman": "women", "mouse": "mice", "thief": "thieves",
    "knife": "knives", "tomato": "tomatoes", "potato": "potatoes",
}  # fmt: skip

# How often it is drawn, Spanish forms (masculine, feminine, their plurals; - where there is none),
# English (one, many). A number can follow the definite ones; `hay` goes with the indefinite.
_DETERMINERS = {
    "definite": """24 el la los las = the the, 4 este esta estos estas = this these,
        3 ese esa esos esas = that those, 4 mi mi mis mis = my my, 3 tu tu tus tus = your your,
        3 nuestro nuestra nuestros nuestras = our our""",
    "indefinite": """9 un una - - = a -, 1 otro otra otros otras = another other,
        2 - - muchos muchas = - many""",
    "other": "1 cada cada - - = every -",
}
_NUMBERS = """1 - - dos dos = - two, 1 - - tres tres = - three, 1 - - cuatro cuatro = - four,
    1 - - cinco cinco = - five, 1 - - seis seis = - six, 1 - - siete siete = - seven,
    1 - - ocho ocho = - eight"""

PREPOSITIONS = {  # `en` is said by the noun
    "en": "", "debajo de": "under", "detrás de": "behind", "delante de": "in front of",
    "cerca de": "near", "junto a": "next to",
}  # fmt: skip
TIMES = {
    "hoy": "today", "ahora": "now", "todos los días": "every day",
    "por la mañana": "in the morning", "por la noche": "at night",
}  # fmt: skip
POLARITIES = {"": "", "no": "not", "siempre": "always", "nunca": "never"}
# What one has in Spanish, one is in English.
FEELINGS = {
    "hambre": "hungry", "sed": "thirsty", "sueño": "sleepy", "miedo": "afraid",
    "prisa": "in a hurry", "razón": "right",
}  # fmt: skip
CLITICS = {"lo": "it", "la": "it", "los": "them", "las": "them"}
_WOMEN = ("Ana", "María", "Elena", "Sofía")
_NAMES = (*_WOMEN, "Pedro", "Juan", "Pablo", "Diego")
# Subjects: Spanish (- where it is left out), English, person, gender.
_PRONOUNS = """- I 0 m, - I 0 f, - you 1 m, - you 1 f, - we 3 m, - we 3 f,
    él he 2 m, ella she 2 f, ellos they 4 m, ellas they 4 f"""
# What is left for a dictionary of single words: words of fixed phrases, and one sense of each.
_SINGLE_WORDS = """a to, al to_the, de of, del of_the, en in, debajo under, detrás behind,
    delante in_front, cerca near, junto next, lo it, me me, te you, le him, nos us, les them,
    y and, muy very, no not, siempre always, nunca never, hay there_is, hoy today, ahora now,
    todos all, días days, por for, mañana morning, noche night, él he, ella she, ellos they,
    ellas they, hambre hunger, sed thirst, sueño sleep, miedo fear, prisa hurry, razón reason"""


@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun; its forms are (one, many) in both languages, its `kinds` say what it can go with."""

    lemma: str
    feminine: bool
    spanish: tuple[str, str]
    english: tuple[str, str]
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """A verb in the present: its forms by person in both languages."""

    lemma: str
    spanish: tuple[str, ...]
    english: tuple[str, ...]
    base: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Adjective:
    """An adjective; Spanish forms by 2 * plural + feminine, and the verb that predicates it."""

    lemma: str
    spanish: tuple[str, ...]
    english: str
    copula: Verb
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Determiner:
    """What opens a noun phrase; Spanish forms by 2 * plural + feminine, English (one, many)."""

    lemma: str
    spanish: tuple[str, ...]
    english: tuple[str, str]
    kind: str
    weight: int


@dataclass(frozen=True, slots=True, eq=False)
class Pronoun:
    """A subject; Spanish leaves out `yo`, `tú` and `nosotros`, but adjectives show their gender."""

    spanish: str
    english: str
    person: int
    feminine: bool


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """One or two people by name."""

    names: tuple[str, ...]
    spanish: str
    english: str
    person: int
    feminine: bool


def _entries(table: str) -> list[list[str]]:
    """The words of each comma-separated entry; an underscore holds a phrase together."""
    rows = [entry.split() for entry in table.split(",")]
    return [[word.replace("_", " ") for word in row] for row in rows]


def _spanish_plural(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if word[-1] in "aeoá":
        return word + "s"
    if word[-1] == "z":
        return word[:-1] + "ces"
    # A last syllable that was stressed in writing no longer needs it: limón, limones.
    return word[:-2] + word[-2].translate(str.maketrans("áéíó", "aeio")) + word[-1] + "es"


def _add_s(word: str) -> str:
    """The English -s, of a plural or of the third person."""
    if word[-1] == "y" and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh", "o")) else "s")


def _noun(row: list[str], kind: str) -> Noun:
    article, spanish, english, *more = row
    plurals = _spanish_plural(spanish), _PLURALS.get(english) or _add_s(english)
    forms = (spanish, plurals[0]), (english, plurals[1])
    return Noun(spanish, article == "la", *forms, frozenset([kind, *more]))


def _verbs(table: dict[str, str]) -> tuple[Verb, ...]:
    verbs = []
    for kinds, entries in table.items():
        for lemma, english in _entries(entries):
            endings = _ENDINGS[lemma[-2:]].split()
            spanish = _PRESENT.get(lemma, "").split() or [lemma[:-2] + end for end in endings]
            first, *rest = english.split()  # "look for" inflects its first word
            forms = _PRESENT.get(first, "").split() or [first, first, _add_s(first), first, first]
            phrases = tuple(" ".join([form, *rest]) for form in forms)
            verbs.append(Verb(lemma, tuple(spanish), phrases, english, frozenset(kinds.split())))
    return tuple(verbs)


def _adjective(spanish: str, english: str, copula: Verb, kinds: str) -> Adjective:
    genders = (spanish, spanish[:-1] + "a" if spanish[-1] == "o" else spanish)
    forms = (*genders, *map(_spanish_plural, genders))
    return Adjective(spanish, forms, english, copula, frozenset(kinds.split()))


def _determiners(table: str, kind: str) -> tuple[Determiner, ...]:
    determiners = []
    for row in _entries(table):
        weight, *spanish = (word.strip("-") for word in row[:5])
        one, many = (word.strip("-") for word in row[6:])
        lemma = spanish[0] or spanish[2]
        determiners.append(Determiner(lemma, tuple(spanish), (one, many), kind, int(weight)))
    return tuple(determiners)


TRANSITIVE = _verbs(_TRANSITIVE)
INTRANSITIVE = _verbs(_INTRANSITIVE)
MODALS = {verb.lemma: verb for verb in _verbs(_MODALS)}
SER, ESTAR, GUSTAR, HABER = _verbs(_OTHER_VERBS)
TENER = next(verb for verb in TRANSITIVE if verb.lemma == "tener")
VERBS = (*TRANSITIVE, *INTRANSITIVE, *MODALS.values(), SER, ESTAR, GUSTAR, HABER)
NOUNS = tuple(_noun(row, kind) for kind, rows in _NOUNS.items() for row in _entries(rows))
ADJECTIVES = tuple(
    _adjective(spanish, english, {"ser": SER, "estar": ESTAR}[copula], kinds)
    for (copula, kinds), rows in ((key.split(":"), rows) for key, rows in _ADJECTIVES.items())
    for spanish, english in _entries(rows)
)
HUMANS = tuple(noun for noun in NOUNS if "person" in noun.kinds)
ANIMALS = tuple(noun for noun in NOUNS if "animal" in noun.kinds)
PLACES = tuple(noun for noun in NOUNS if noun.kinds & {"in", "on"})
MOVABLE = tuple(noun for noun in NOUNS if noun.kinds & {"animal", "food", "text", "item"})
HUMAN_ADJECTIVES = tuple(adjective for adjective in ADJECTIVES if "person" in adjective.kinds)
NUMBERS = _determiners(_NUMBERS, "number")
DETERMINERS = (
    *(d for kind, rows in _DETERMINERS.items() for d in _determiners(rows, kind)),
    *NUMBERS,
)
PRONOUNS = tuple(
    Pronoun(spanish.strip("-"), english, int(person), gender == "f")
    for spanish, english, person, gender in _entries(_PRONOUNS)
)
PEOPLE = tuple(
    People(names, " y ".join(names), " and ".join(names), person, set(names) <= set(_WOMEN))
    for names, person in (
        *(((name,), SHE) for name in _NAMES),
        *((couple, THEY) for couple in itertools.permutations(_NAMES, 2)),
    )
)
SINGLES = PEOPLE[: len(_NAMES)]
THERE = Pronoun("", "there", SHE, False), Pronoun("", "there", THEY, False)  # (is, are)
LEMMAS = (
    *(word.lemma for word in (*NOUNS, *ADJECTIVES, *VERBS, *DETERMINERS)),
    *(*PREPOSITIONS, *TIMES, *FEELINGS, "no", "siempre", "nunca", "muy", "y"),
)


# What can be said of each noun, or done with it: the pairs that agreement of kinds allows.
COMBINATIONS = tuple(
    (noun, other)
    for noun in NOUNS
    for other in (*ADJECTIVES, *TRANSITIVE, GUSTAR, HABER)
    if noun.kinds & other.kinds
)


def word_for_word(spanish: str) -> str:
    """Translate by dictionary, each word in its place; what a model of translation has to beat."""
    glosses = _dictionary()
    words = [glosses.get(word, word) for word in spanish.strip("¿?").split()]
    return " ".join(words) + "?" * spanish.endswith("?")


@functools.cache
def _dictionary() -> dict[str, str]:
    """Every Spanish form and the English that stands for it when nothing else is known."""
    glosses: dict[str, str] = {}
    for verb in VERBS:
        glosses |= {verb.lemma: verb.base} | dict(zip(verb.spanish, verb.english, strict=True))
        for clitic, english in CLITICS.items():
            glosses[verb.lemma + clitic] = f"{verb.base} {english}"
    for noun in NOUNS:
        glosses |= zip(noun.spanish, noun.english, strict=True)
    for adjective in ADJECTIVES:
        glosses |= dict.fromkeys(adjective.spanish, adjective.english)
    for determiner in DETERMINERS:
        one, many = determiner.english
        glosses |= zip(determiner.spanish, (one, one, many, many), strict=True)
    return glosses | dict(_entries(_SINGLE_WORDS))
