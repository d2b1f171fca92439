"""Scores of translations: BLEU and chrF with signatures, exact match, perplexity, brackets."""

from transformer.evaluation.brackets import BracketScores, score_brackets
from transformer.evaluation.evaluate import Evaluation, evaluate
from transformer.evaluation.perplexity import Likelihood, LikelihoodEvaluator
from transformer.evaluation.scores import Scores, score

__all__ = [
    "BracketScores",
    "Evaluation",
    "Likelihood",
    "LikelihoodEvaluator",
    "Scores",
    "evaluate",
    "score",
    "score_brackets",
]
