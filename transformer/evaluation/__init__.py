"""From words to scores: BLEU and chrF with signatures, exact match, perplexity."""

from transformer.evaluation.evaluate import Evaluation, evaluate
from transformer.evaluation.perplexity import Likelihood, LikelihoodEvaluator
from transformer.evaluation.scores import Scores, score

__all__ = [
    "Evaluation",
    "Likelihood",
    "LikelihoodEvaluator",
    "Scores",
    "evaluate",
    "score",
]
