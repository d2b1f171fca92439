"""What a comparison reads off a run beside its scores."""

from typing import Any

from transformer.config import ReachConfig
from transformer.data import recall
from transformer.data.normal_forms import composed
from transformer.evaluation import Evaluation
from transformer.experiment import Experiment
from transformer.models import parameters
from transformer.reports.compare.reach import reach, recall_sources


def measured(
    config: ReachConfig, experiment: Experiment, params: Any, evaluation: Evaluation
) -> dict[str, Any]:
    """Each test sentence's words, and whether its translation is the reference.

    Of a recall task also its distances, and how far gradients reach, trained and untrained.
    """
    pairs = zip(evaluation.translations, evaluation.references, strict=True)
    result: dict[str, Any] = {
        "lengths": [len(source.split()) for source in evaluation.sources],
        "correct": "".join(
            "01"[composed(ours).strip() == composed(theirs).strip()] for ours, theirs in pairs
        ),
    }
    if experiment.config.data.source == "recall":
        source, seed = recall_sources(experiment, config.sentences), experiment.config.seed
        untrained = parameters.create(experiment.model, experiment.layout, seed)
        result["distances"] = [recall.distance(source) for source in evaluation.sources]
        result["reach"] = {
            name: reach(experiment, these, source, probes=config.probes, seed=seed).tolist()
            for name, these in (("trained", params), ("untrained", untrained))
        }
    return result
