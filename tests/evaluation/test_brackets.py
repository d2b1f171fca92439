"""Labelled brackets, counted by hand and by a second way to count them."""

import json
import random
import re
from collections.abc import Iterator

import pytest

from transformer.data.treebank import Tree, linearise, orchard, put_together, read_text
from transformer.errors import UserError
from transformer.evaluation.brackets import score_brackets


def trees(*texts: str) -> list[Tree]:
    return [tree for text in texts for tree in read_text(text)]


GOLD = (
    "(S (NP (PRP I)) (VP (VBP see) (NP (DT the) (NN man)) (PP (IN with) "
    "(NP (DT a) (NN hat)))) (. .))"
)


def test_an_attachment_that_is_wrong() -> None:
    """By hand: S, NP, VP, NP the man, PP, NP a hat are right; one NP around man and hat is not."""
    said = (
        "(S (NP (PRP I)) (VP (VBP see) (NP (NP (DT the) (NN man)) (PP (IN with) "
        "(NP (DT a) (NN hat))))) (. .))"
    )
    scores = score_brackets(trees(said), trees(GOLD))
    assert scores.precision == pytest.approx(100 * 6 / 7)
    assert scores.recall == 100.0
    assert scores.f1 == pytest.approx(2 * (6 / 7) / (6 / 7 + 1) * 100)
    assert scores.complete_match == 0.0 and scores.sentences == 1
    again = score_brackets(trees(GOLD), trees(said))
    assert (again.precision, again.recall) == (scores.recall, scores.precision)
    assert again.f1 == scores.f1


@pytest.mark.parametrize(
    ("said", "right", "same", "ours", "theirs"),
    [
        # A label that is wrong, and parts of speech, which do not count.
        ("(S (VP (NN a)) (NN b))", "(S (NP (DT a)) (JJ b))", 1, 2, 2),
        # The bracket around the sentence does not count, whatever it is called.
        ("(TOP (NP (NN a)) (NP (NN b)))", "(S (NP (NN a)) (NP (NN b)))", 2, 2, 3),
        # Punctuation is out of the sentence, by the right tree's tags.
        ("(S (NP (NN a) (X ,)) (NP (NN b)))", "(S (NP (NN a)) (, ,) (NP (NN b)))", 3, 3, 3),
        ("(S (NP (NN a) (. ,)) (NP (NN b)))", "(S (NP (NN a)) (CC ,) (NP (NN b)))", 2, 3, 3),
        ("(S (`` x) (NP (NN a) ('' y)) (: z))", "(S (NP (`` x) (NN a)) ('' y) (. z))", 2, 2, 2),
        ("(S (NN a) (-RRB- b))", "(S (NP (NN a) (-RRB- b)))", 1, 1, 2),  # brackets stay in
        # And what covers nothing else.
        ("(S (NN a) (NP (. .)))", "(S (NN a) (. .))", 1, 1, 1),
        # PRT is ADVP.
        ("(S (PRT (RP a)) (ADVP (RB b)))", "(S (ADVP (RP a)) (PRT (RB b)))", 3, 3, 3),
        # As many of a kind as both have.
        ("(S (NP (X (NP (NN a)))) (NN b))", "(S (NP (NN a)) (NN b))", 2, 4, 2),
        ("(S (NP (NN a)) (NN b))", "(S (NP (X (NP (NN a)))) (NN b))", 2, 2, 4),
    ],
)
def test_brackets_by_hand(said: str, right: str, same: int, ours: int, theirs: int) -> None:
    scores = score_brackets(trees(said), trees(right))
    assert scores.precision == pytest.approx(100 * same / ours)
    assert scores.recall == pytest.approx(100 * same / theirs)
    assert scores.f1 == pytest.approx(200 * same / (ours + theirs))
    assert scores.complete_match == 100.0 * (same == ours == theirs)


def test_a_set_is_counted_as_one() -> None:
    """3 of 4 and 1 of 1 are 4 of 5: not the mean of two shares."""
    found = trees("(S (NP (NN a)) (VP (NN b) (NP (NN c))))", "(NP (NN a))")
    right = trees("(S (NP (NN a)) (NP (NN b) (NP (NN c))))", "(NP (NN a))")
    scores = score_brackets(found, right, mended=1)
    assert scores.f1 == pytest.approx(80.0)
    assert (scores.complete_match, scores.mended) == (50.0, 50.0)


def test_nothing_found_is_0_and_no_error() -> None:
    scores = score_brackets([put_together("", ["a"]).tree], trees("(NP (NN a))"))
    assert (scores.precision, scores.recall, scores.f1) == (0.0, 0.0, 0.0)


def nested(tokens: Iterator[str]) -> list:
    """[label, child, ...] of bracketed text whose first bracket is open."""
    node: list = [next(tokens)]
    for token in tokens:
        if token == ")":
            break
        node.append(nested(tokens) if token == "(" else token)
    return node


def reference(found: str, right: str) -> tuple[int, int, int]:
    """EVALB's count in another way: on nested text, crossing off each bracket that is matched."""
    tags = re.findall(r"\(([^\s()]+) w\d+\)", right)

    def brackets(text: str) -> list[tuple[str, list[str]]]:
        result = []

        def words(node: list) -> list[str]:
            if isinstance(node[1], str):
                tag = tags[int(node[1][1:])]
                return [] if tag in {",", ":", "``", "''", "."} else [node[1]]
            within = [word for child in node[1:] for word in words(child)]
            if within and node[0] != "TOP":
                result.append(("ADVP" if node[0] == "PRT" else node[0], within))
            return within

        tokens = iter(re.findall(r"[()]|[^\s()]+", text))
        assert next(tokens) == "("
        words(nested(tokens))
        return result

    ours, theirs = brackets(found), brackets(right)
    left, same = list(theirs), 0
    for bracket in ours:
        if bracket in left:
            left.remove(bracket)
            same += 1
    return same, len(ours), len(theirs)


def test_as_a_second_way_to_count() -> None:
    """On orchard's trees and on brackets that were damaged at random."""
    draw = random.Random(5)
    sums, found, right = [0, 0, 0], [], []
    for tree in orchard.trees("train", 60):
        words = [f"w{number}" for number in range(len(tree.words))]
        symbols = linearise(tree).split()
        for _ in range(draw.randrange(4)):
            place = draw.randrange(len(symbols))
            symbols[place] = draw.choice(["XX", "(NP", ")NP", "(PRT", "(ADVP", ")S"])
        gold = put_together(linearise(tree), words, tree.tags).tree
        damaged = put_together(" ".join(symbols), words).tree
        counts = reference(damaged.bracketed(), gold.bracketed())
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
        found.append(damaged)
        right.append(gold)
    same, ours, theirs = sums
    scores = score_brackets(found, right)
    assert 0.5 * theirs < same < theirs
    assert scores.precision == pytest.approx(100 * same / ours)
    assert scores.recall == pytest.approx(100 * same / theirs)


def test_scores_are_json_and_a_table() -> None:
    scores = score_brackets(trees(GOLD), trees(GOLD))
    assert json.loads(json.dumps(scores.as_dict())) == scores.as_dict()
    rows = [line.split()[:2] for line in scores.table().splitlines()]
    assert rows == [
        ["precision", "100.00"],
        ["recall", "100.00"],
        ["F1", "100.00"],
        ["complete", "100.00"],
        ["mended", "0.00"],
    ]


def test_sets_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(UserError, match="1 trees for 2 right ones"):
        score_brackets(trees("(NN a)"), trees("(NN a) (NN b)"))
    with pytest.raises(UserError, match="no trees to score"):
        score_brackets([], [])
    with pytest.raises(UserError, match=r"tree 2 is of other words .*: 'b c', not 'b d'"):
        score_brackets(trees("(NN a) (S (X b) (X c))"), trees("(NN a) (S (X b) (X d))"))
