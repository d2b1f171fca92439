"""Agreement: what is right is casa roja's, and what is wrong differs by a word."""

from collections import Counter

import pytest

from transformer.data import Agreement, agreement, casa_roja
from transformer.data.casa_roja import lexicon
from transformer.data.casa_roja.sentences import Writer
from transformer.errors import UserError


def test_labels_are_even_and_no_sentence_comes_twice() -> None:
    found = {split: agreement.pairs(split, 600) for split in casa_roja.SPLITS}
    texts = [text for pairs in found.values() for text, _ in pairs]
    assert len(set(texts)) == len(texts) == 1_800
    for pairs in found.values():
        counts = Counter(label for _, label in pairs)
        assert set(counts) == {"right", "wrong"} and 240 < counts["right"] < 360
    # Of each label as many questions and as long sentences: nothing else gives it away.
    by_label = {
        label: [text for pairs in found.values() for text, told in pairs if told == label]
        for label in ("right", "wrong")
    }
    lengths = [sum(map(len, map(str.split, texts))) / len(texts) for texts in by_label.values()]
    assert abs(lengths[0] - lengths[1]) < 0.5
    words = [set(" ".join(texts).split()) for texts in by_label.values()]
    common = Counter(word for text in by_label["wrong"] for word in text.split())
    assert all(word in words[0] for word, count in common.items() if count > 20)


def test_one_word_of_a_wrong_sentence_has_another_of_its_forms() -> None:
    forms = {}
    for word in (*lexicon.ADJECTIVES, *lexicon.DETERMINERS, *lexicon.VERBS):
        for form in filter(None, word.spanish):
            forms.setdefault(form, set()).update(word.spanish)
    writer, wrong = Writer("train", 5), 0
    for _ in range(300):
        tree = writer.tree()
        right = casa_roja.spanish(tree).strip("¿?").split()
        for altered in agreement.faults(tree):
            text = casa_roja.spanish(altered).strip("¿?").split()
            if text == right or len(text) != len(right):
                continue  # the same form; or `del`, which is `de` and an article
            changed = [(a, b) for a, b in zip(right, text, strict=True) if a != b]
            assert len(changed) == 1, (right, text)
            ((a, b),) = changed
            assert b in forms.get(a, ()) or {a, b} & {"del", "al"}, (right, text)
            wrong += 1
    assert wrong > 300


def test_examples() -> None:
    house = next(noun for noun in lexicon.NOUNS if noun.lemma == "casa")
    red = next(word for word in lexicon.ADJECTIVES if word.lemma == "rojo")
    the = lexicon.DETERMINERS[0]
    phrase = casa_roja.Phrase(house, False, the, adjective=red)
    said = {casa_roja.spanish(tree) for tree in agreement.faults(phrase)}
    assert said == {"el casa roja", "las casa roja", "la casa rojo", "la casa rojas"}
    clause = casa_roja.Clause(casa_roja.Phrase(house, True, the), lexicon.SER, red)
    said = {casa_roja.spanish(tree) for tree in agreement.faults(clause)}
    assert said == {"los casas son rojas", "la casas son rojas", "las casas son rojos",
                    "las casas son roja", "las casas es rojas"}  # fmt: skip
    # Who leaves the subject out may be a man or a woman.
    tired = next(word for word in lexicon.ADJECTIVES if word.lemma == "cansado")
    clause = casa_roja.Clause(lexicon.PRONOUNS[0], lexicon.ESTAR, tired)
    assert [casa_roja.spanish(t) for t in agreement.faults(clause)] == ["estoy cansados"]


def test_held_out_combinations_stay_held_out() -> None:
    """A right sentence of dev has what train never shows; and a split starts with a smaller one."""
    assert agreement.pairs("dev", 30)[:10] == agreement.pairs("dev", 10)
    corpus = Agreement(50, 20, 20)
    assert [pair[:2] for pair in corpus.pairs("dev")] == agreement.pairs("dev", 20)
    prints = {corpus.fingerprint(split) for split in casa_roja.SPLITS}
    assert len(prints) == 3 and Agreement(51, 20, 20).fingerprint("dev") in prints
    with pytest.raises(UserError, match=r"data.agreement.test_size is .*: agreement gives 0 to"):
        next(Agreement(1, 1, 10**9).pairs("test"))
