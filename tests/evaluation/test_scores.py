"""Scores against values that other implementations of the same definitions gave."""

import json
import math
import unicodedata
from typing import Any

import pytest

from transformer.errors import UserError
from transformer.evaluation.scores import checked_metrics, measure, score

REFERENCES = ["The cat sat on the mat.", "It isn't raining, today!", "A dog barks."]
HYPOTHESES = ["The cat sat on a mat.", "It isn't raining, today!", " A dog barks. "]


def test_equal_sets_score_100():
    scores = score(REFERENCES, REFERENCES)
    assert (round(scores.bleu, 9), round(scores.chrf, 9), scores.exact_match) == (100, 100, 100)
    assert scores.sentences == 3


def test_bleu_is_that_of_the_definition():
    """Papineni et al. 2002 by hand: 13a cuts `mat.` into two tokens, and leaves `isn't` one."""
    scores = score(["The cat sat on a mat."], ["The cat sat on the mat."])
    precisions = 6 / 7, 4 / 6, 2 / 5, 1 / 4  # `a` is wrong, and every n-gram that it stands in
    product = 1.0
    for precision in precisions:
        product *= precision
    assert scores.bleu == pytest.approx(100 * product ** (1 / 4))


def test_case_counts_and_signatures_say_so():
    scores = score([text.lower() for text in REFERENCES], REFERENCES)
    assert scores.bleu < 90 and scores.chrf < 100 and scores.exact_match == 0
    bleu = dict(part.split(":") for part in scores.bleu_signature.split("|"))
    assert (bleu["nrefs"], bleu["case"], bleu["tok"]) == ("1", "mixed", "13a")
    assert bleu["smooth"] == "exp" and "version" in bleu
    chrf = dict(part.split(":") for part in scores.chrf_signature.split("|"))
    assert (chrf["nrefs"], chrf["nc"], chrf["nw"]) == ("1", "6", "0")


def test_exact_match_leaves_outer_spaces_aside():
    assert score(HYPOTHESES, REFERENCES).exact_match == pytest.approx(200 / 3)


def test_a_perfect_translation_of_a_decomposed_reference_is_perfect():
    composed = ["Tất cả mọi người sinh ra đều được tự do.", "Café déjà vu à la crème brûlée."]
    decomposed = [unicodedata.normalize("NFD", text) for text in composed]
    for ours, theirs in ((composed, decomposed), (decomposed, composed)):
        scores = score(ours, theirs)
        perfect = (scores.bleu, scores.chrf, scores.exact_match)
        assert [round(value, 9) for value in perfect] == [100, 100, 100]
        assert scores.bleu_raw is not None and scores.bleu_raw < 30
        assert "BLEU, raw" in scores.table()
    assert score(composed, composed).bleu_raw is None
    as_spelled = score(composed, decomposed, as_spelled=True)
    assert (as_spelled.bleu, as_spelled.bleu_raw) == (score(composed, decomposed).bleu_raw, None)
    assert as_spelled.exact_match == 0


def test_scores_are_json_and_a_table():
    scores = score(HYPOTHESES, REFERENCES)
    assert json.loads(json.dumps(scores.as_dict())) == scores.as_dict()
    assert scores.as_dict()["bleu"] == scores.bleu
    bleu, chrf, exact = scores.table().splitlines()
    assert bleu.split() == ["BLEU", f"{scores.bleu:.2f}", scores.bleu_signature]
    assert chrf.split() == ["chrF", f"{scores.chrf:.2f}", scores.chrf_signature]
    assert exact == "exact match   66.67  % of 3 sentences"


def test_sets_that_cannot_be_scored_are_refused():
    with pytest.raises(UserError, match="2 hypotheses for 3 references"):
        score(HYPOTHESES[:2], REFERENCES)
    with pytest.raises(UserError, match="no sentences to score"):
        score([], [])


def test_a_measure_that_fails_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    """What was trained is not lost for another's code."""

    def missing(translations, references) -> Any:
        return None

    def share(translations, references):
        return 0.5

    values = measure([missing, share], ["a"], ["a"])
    assert math.isnan(values["missing"]) and values["share"] == 0.5
    assert "the metric missing fails: TypeError" in caplog.text


@pytest.mark.parametrize("names", [["bleu"], ["twice", "twice"]])
def test_a_measure_has_a_name_of_its_own(names: list[str]) -> None:
    metrics = [type(name, (), {"__call__": lambda self, *_: 0.0})() for name in names]
    with pytest.raises(UserError, match="rename the function"):
        checked_metrics(metrics)
    with pytest.raises(UserError, match="is no function"):
        checked_metrics([3])
