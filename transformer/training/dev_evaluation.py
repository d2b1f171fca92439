"""Evaluation while training: the development set's loss, scores and samples."""

from collections.abc import Sequence
from typing import Any

from transformer.decoding import open_translator
from transformer.evaluation import (
    LikelihoodEvaluator,
    Metric,
    bleu_tokenizers,
    checked_metrics,
    measure,
    named_metrics,
    score,
)
from transformer.experiment import Experiment
from transformer.losses import Loss
from transformer.training.metrics import Sample


class DevEvaluator:
    """Evaluates parameters on the development set; compiled once, when first used."""

    def __init__(
        self, experiment: Experiment, metrics: Sequence[Metric] = (), loss: Loss | None = None
    ):
        self._experiment = experiment
        named = named_metrics(experiment.config.evaluation.metrics)
        self._metrics = checked_metrics([*named, *metrics])
        self._translates_all = experiment.config.training.eval_bleu or bool(self._metrics)
        self._likelihood = LikelihoodEvaluator(experiment, experiment.store("dev"), loss)
        self._pairs = [pair[:2] for pair in experiment.corpus.pairs("dev")]
        self._bleu_tokenizer = None
        if experiment.config.training.eval_bleu:
            self._bleu_tokenizer = bleu_tokenizers.in_training(
                experiment, lambda: (target for _, target in self._pairs)
            )
        self._translator: Any = None
        self._refuse_too_large()

    def __call__(self, params: Any) -> tuple[dict[str, float], list[Sample]]:
        """Values by name (`loss`, and `bleu` where configured), and some translations."""
        training = self._experiment.config.training
        likelihood = self._likelihood(params)
        values: dict[str, float] = {
            "loss": likelihood.loss,
            "nll": likelihood.nll,
            "perplexity": likelihood.perplexity,
            "accuracy": likelihood.accuracy,
        }
        pairs = self._pairs if self._translates_all else self._pairs[: training.eval_samples]
        texts = self._translate(params, [source for source, _ in pairs]) if pairs else []
        if training.eval_bleu:
            scores = score(
                texts,
                [target for _, target in pairs],
                self._bleu_tokenizer,
                # A run from before text was composed is judged to its end as it was.
                as_spelled=not self._experiment.tokenizer.composes,
            )
            values |= {"bleu": scores.bleu, "chrf": scores.chrf, "exact_match": scores.exact_match}
        references = [target for _, target in pairs]
        values |= measure(self._metrics, texts, references)
        samples = [Sample(*pair, text) for pair, text in zip(pairs, texts, strict=True)]
        return values, samples[: training.eval_samples]

    def _refuse_too_large(self) -> None:
        """Before anything trains: the first evaluation may be hours away."""
        training, lengths = self._experiment.config.training, self._experiment.store("dev").lengths
        sources = lengths[:, 0] if self._translates_all else lengths[: training.eval_samples, 0]
        if sources.size:
            shapes = self._experiment.abstract_params
            translator = open_translator(self._experiment, shapes, max_length=int(lengths.max()))
            translator.refuse_too_large([n for n in sources.tolist() if n > 1])

    def _translate(self, params: Any, sources: list[str]) -> list[str]:
        if self._translator is None:
            longest = int(self._experiment.store("dev").lengths.max())
            self._translator = open_translator(self._experiment, params, max_length=longest)
        self._translator.params = params
        return [best[0].text for best in self._translator.translate(sources)]
