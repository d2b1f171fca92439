"""Scores of translations: BLEU and chrF with signatures, exact match, perplexity, brackets."""

from transformer.evaluation.brackets import BracketScores, score_brackets
from transformer.evaluation.evaluate import Evaluation, evaluate, evaluate_files
from transformer.evaluation.perplexity import Likelihood, LikelihoodEvaluator
from transformer.evaluation.scores import (
    Metric,
    Scores,
    checked_metrics,
    measure,
    named_metrics,
    score,
)

__all__ = [
    "BracketScores",
    "Evaluation",
    "Likelihood",
    "LikelihoodEvaluator",
    "Metric",
    "Scores",
    "checked_metrics",
    "evaluate",
    "evaluate_files",
    "measure",
    "named_metrics",
    "score",
    "score_brackets",
]
