"""Bracketed files as trees, and trees as sentences and back."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data import Orchard, Pair, Problem, Treebank
from transformer.data.casa_roja import lexicon
from transformer.data.treebank import (
    TOP,
    Span,
    Tree,
    linearise,
    orchard,
    pair,
    put_together,
    read,
    read_text,
)
from transformer.data.treebank.orchard import _Writer
from transformer.errors import UserError

# One tree as the Penn Treebank writes it, and what is trained on and scored.
RAW = """
( (S
    (NP-SBJ-1
      (NP (DT The) (NNS shares) )
      (SBAR
        (WHNP-2 (WDT that) )
        (S (NP-SBJ (-NONE- *T*-2) ) (VP (VBD fell) (ADVP|PRT (RB 1\\/2) )))))
    (VP (VBD were)
      (VP (VBN sold)
        (NP (-NONE- *-1) )
        (S (NP=3 (-NONE- *) ) (VP (-NONE- *?*) ))
        (PP-TMP (IN in) (NP (NP (NP (NNP May)))))))
    (-LRB- -LRB-) (-RRB- -RRB-) (. .) ))
"""
NORMAL = (
    "(S (NP (NP (DT The) (NNS shares)) (SBAR (WHNP (WDT that)) (S (VP (VBD fell) "
    "(ADVP (RB 1/2)))))) (VP (VBD were) (VP (VBN sold) (PP (IN in) (NP (NNP May))))) "
    "(-LRB- -LRB-) (-RRB- -RRB-) (. .))"
)


def one(text: str) -> Tree:
    (tree,) = read_text(text)
    return tree


def test_a_tree_as_the_treebank_has_it() -> None:
    tree = one(RAW)
    assert tree.bracketed() == NORMAL
    assert " ".join(tree.words) == "The shares that fell 1/2 were sold in May -LRB- -RRB- ."
    assert one(NORMAL) == tree
    assert tree.spans[:3] == (Span("S", 0, 12), Span("NP", 0, 5), Span("NP", 0, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((S (NN a)))", "(S (NN a))"),
        ("(TOP (S (NN a)))", "(S (NN a))"),
        ("(ROOT (S1 (S (NN a))))", "(S (NN a))"),
        ("( (NP (NN a)) (. b))", "(TOP (NP (NN a)) (. b))"),
        ("(ROOT (NP (NN a)) (. b))", "(TOP (NP (NN a)) (. b))"),
        ("(NN a)", "(TOP (NN a))"),
        ("(TOP (NN a))", "(TOP (NN a))"),
        ("(S (X (-NONE- *)) (S (NP (NN a))) (X (X (-NONE- 0))))", "(S (NP (NN a)))"),
        ("(S (VP (S (NN a))))", "(S (VP (S (NN a))))"),
        ("(NP (NP (NN a)) (NP (NN a)))", "(NP (NP (NN a)) (NP (NN a)))"),
        ("(S (NN \\*a\\*) (NN \\b))", "(S (NN *a*) (NN \\b))"),
        ("(S (PRP$ a) ($ $) (-LRB- b) (`` ``) (: --))",) * 2,
        ("(-X-Y (NN a))", "(-X-Y (NN a))"),
        ("(S (NN a\u00a0b))", "(S (NN a\u00a0b))"),  # a word with a space in it is one word
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert one(text).bracketed() == expected


def test_trees_without_words_are_left_out_of_training() -> None:
    tree = one("( (S (NP (-NONE- *))) )")
    assert tree == Tree((), (), ())
    assert pair(tree) == Pair("", "", Problem.EMPTY) and tree.bracketed() == ""


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("(S (NN a))\n(S\n(NP (NN a))", 2, "lacks a closing bracket;"),
        ("(S (NN a)))", 1, "a closing bracket too many"),
        ("(S (NN a))\n\n (S (NP ) (NN a))", 3, r"an empty constituent \(NP\)"),
        ("()", 1, r"an empty constituent \(\)"),
        ("(S (NN a)\nthe)", 2, "the word the has no bracket and part of speech"),
        ("(NP\n the (NN a))", 2, "the word the has no bracket and part of speech"),
        ("(NN a b)", 1, "a bracket with two words, a and b"),
        ("Sentence 1\n(NN a)", 1, "Sentence stands in no bracket"),
    ],
)
def test_bad_brackets_are_one_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "a.mrg"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        list(read(str(path), "data.treebank.train"))
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mrg"
    path.write_bytes(b"\xef\xbb\xbf(NN a)\n(NN caf\xe9)\n")  # a byte order mark is no fault
    with pytest.raises(UserError, match=r"a\.mrg, line 2 is not UTF-8 text \(byte 8\)"):
        list(read(str(path), "data.treebank.train"))


def test_a_tree_is_a_sentence_of_brackets() -> None:
    tree = one("(S (NP (DT the) (NN dog)) (VP (VBZ barks)) (. .))")
    assert linearise(tree) == "(S (NP XX XX )NP (VP XX )VP XX )S"
    assert pair(tree) == Pair("the dog barks .", linearise(tree), tags="DT NN VBZ .")
    assert put_together(linearise(tree), tree.words, tree.tags) == (tree, False)
    said = put_together(linearise(tree), ["a", "(", "b)", "."]).tree
    assert said.bracketed() == "(S (NP (XX a) (XX -LRB-)) (VP (XX b-RRB-)) (XX .))"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("(S XX (VP XX XX )VP", "(S a (VP b c))"),  # not closed
        ("(S (NP XX (VP XX )S XX", f"({TOP} (S (NP a (VP b))) c)"),  # closed by what is around
        ("(S (NP XX )NP XX )S", "(S (NP a) b c)"),  # a word left over
        ("(S XX XX XX XX XX )S", "(S a b c)"),  # too many
        ("(S XX )NP XX XX )VP )S", "(S a b c)"),  # closing what is not open
        ("(S (NP )NP XX XX XX )S", "(S a b c)"),  # without words
        ("(S XX XX XX (NP )NP (VP", "(S a b c)"),
        ("(S XX )S (S XX XX )S", f"({TOP} (S a) (S b c))"),  # two
        ("XX (S XX XX )S", f"({TOP} a (S b c))"),
        ("", f"({TOP} a b c)"),
        ("XX XX XX", f"({TOP} a b c)"),
        ("the ( ) (S XX xx XX XX )S (", "(S a b c)"),  # other words
    ],
)
def test_what_is_no_tree_is_mended(said: str, expected: str) -> None:
    tree, mended = put_together(said, ["a", "b", "c"])
    assert mended
    assert (
        tree.bracketed().replace("(XX a)", "a").replace("(XX b)", "b").replace("(XX c)", "c")
        == expected
    )


SYMBOLS = st.lists(st.sampled_from(["(S", "(NP", ")S", ")NP", "XX", "XX", "(", "?"]), max_size=30)


@given(symbols=SYMBOLS, count=st.integers(0, 6))
def test_whatever_is_said_is_a_tree_of_the_sentence(symbols: list[str], count: int) -> None:
    words = [f"w{number}" for number in range(count)]
    tree, mended = put_together(" ".join(symbols), words)
    assert tree.words == tuple(words)
    assert put_together(linearise(tree), words) == (tree, False)
    assert mended == (linearise(tree) != " ".join(symbols))
    assert [again.words for again in read_text(tree.bracketed())] == [tree.words] * bool(words)


def test_depth_is_no_limit() -> None:
    deep = 2_000
    text = "(A (B " * deep + "(NN a)" + "))" * deep
    tree = one(text)
    assert len(tree.spans) == 2 * deep and tree.bracketed() == text
    assert put_together(linearise(tree), tree.words, tree.tags) == (tree, False)


def test_files_make_a_corpus(tmp_path: Path) -> None:
    grown = orchard.trees("train", 23)
    (tmp_path / "b.mrg").write_text("\n".join(tree.bracketed() for tree in grown[:11]))
    (tmp_path / "a.mrg").write_text("".join(f"( {tree.bracketed()} )" for tree in grown[11:13]))
    with gzip.open(tmp_path / "c [1].gz", "wt") as file:  # a name that a glob would not match
        file.write("\n".join(f"(TOP\n{t.bracketed()})\n".replace("(", "\n (") for t in grown[13:]))
    pattern = f"{tmp_path}/b.mrg, {tmp_path}/[a]*.mrg,{tmp_path}/c [1].gz"
    corpus = Treebank(pattern, "", f"{tmp_path}/*.mrg")
    assert list(corpus.pairs("train")) == [pair(tree) for tree in grown]
    assert [p.source for p in corpus.pairs("test")] == [
        " ".join(tree.words) for tree in [*grown[11:13], *grown[:11]]
    ]
    assert corpus.has("train") and not corpus.has("dev")
    first = corpus.fingerprint("train")
    (tmp_path / "a.mrg").write_text("(NN a)")
    assert corpus.fingerprint("train") != first
    assert corpus.origins("train") == {"treebank": pattern}


@pytest.mark.parametrize(
    ("pattern", "split", "message"),
    [
        ("{}/no.mrg", "train", r"data\.treebank\.train: there is no file .*/no\.mrg"),
        ("{}/*.no", "train", r"data\.treebank\.train: there is no file .*/\*\.no"),
        (" , ", "train", r"data\.treebank\.train is ' , ', which names no file"),
        ("{}/none.mrg", "train", r"none\.mrg \(of 1 files\): no trees in them"),
        ("{}", "train", r"Is a directory; check the path in data\.treebank\.train"),
        ("x", "dev", r"the corpus has no dev split: set data\.treebank\.dev"),
    ],
)
def test_files_that_are_none_are_one_line(
    tmp_path: Path, pattern: str, split: str, message: str
) -> None:
    (tmp_path / "none.mrg").write_text(" \n")
    with pytest.raises(UserError, match=message) as caught:
        list(Treebank(pattern.format(tmp_path), "", "").pairs(split))
    assert "\n" not in str(caught.value)


def drawn(count: int) -> Iterator[str]:
    writer = _Writer("train", seed=7)
    return (writer.sentence()[0] for _ in range(count))


def test_orchard_has_one_tree_for_a_sentence() -> None:
    found: dict[tuple[str, ...], Tree] = {}
    for text in drawn(1_500):
        tree = one(text)
        assert tree.bracketed() == text and found.setdefault(tree.words, tree) == tree
    labels = {span.label for tree in found.values() for span in tree.spans}
    assert labels == {"S", "SQ", "NP", "VP", "PP", "SBAR", "WHNP", "ADJP", "ADVP"}


def test_orchard_attaches_by_words_alone() -> None:
    """The same parts of speech, other trees: no table of these would do."""
    by_tags: dict[tuple[str, ...], set[tuple[Span, ...]]] = {}
    for text in drawn(800):
        tree = one(text)
        by_tags.setdefault(tree.tags, set()).add(tree.spans)
    assert sum(len(ways) > 1 for ways in by_tags.values()) > 5


def test_orchard_holds_out_pairs_of_nouns() -> None:
    """Each test sentence has one that no training sentence has, and none of the development's."""
    grown = {split: orchard.trees(split, 80) for split in orchard.SPLITS}
    assert grown["dev"][:20] == orchard.trees("dev", 20)
    assert len({tree.words for tree in grown["train"]}) == 80
    for split, trees in grown.items():
        for tree in trees:
            found = {orchard.split_of(*pair) for pair in around_prepositions(tree)}
            assert found <= {split, "train"} and (split == "train" or split in found)


def around_prepositions(tree: Tree) -> Iterator[tuple[str, str]]:
    """The noun before each preposition, be it the verb's or the noun's, and the noun after it."""
    singular = {noun.english[1]: noun.english[0] for noun in lexicon.NOUNS}

    def noun(spans: list[Span]) -> str:
        first = next(span for span in spans if span.label == "NP")
        inner = min(
            (s for s in spans if s.label == "NP" and s.start == first.start), key=lambda s: s.end
        )
        word = tree.words[inner.end - 1]
        return singular.get(word, word)

    for number, phrase in enumerate(tree.spans):
        if phrase.label == "PP":
            around = [n for n in range(number) if tree.spans[n].end >= phrase.end][-1]
            before = [s for s in tree.spans[around + 1 : number] if s.end <= phrase.start]
            if before:
                yield noun(before), noun(list(tree.spans[number:]))


def test_orchard_refuses_what_it_has_not() -> None:
    assert min(orchard.count_trees(split) for split in orchard.SPLITS) > 10_000
    with pytest.raises(ValueError, match="orchard has no split 'valid'"):
        orchard.trees("valid", 1)
    with pytest.raises(ValueError, match="orchard gives 0 to"):
        orchard.trees("dev", orchard.count_trees("dev") + 1)


def test_orchard_is_a_corpus() -> None:
    corpus = Orchard(train_size=13, dev_size=5, test_size=7)
    assert [len(list(corpus.pairs(split))) for split in ("train", "dev", "test")] == [13, 5, 7]
    assert corpus.fingerprint("dev") != Orchard(13, 6, 7).fingerprint("dev")
    with pytest.raises(UserError, match=r"data\.orchard\.test_size is 99,999,999; the grammar"):
        list(Orchard(1, 1, 99_999_999).pairs("test"))
