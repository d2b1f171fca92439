"""How surprised a model is by a set of sentences: loss and perplexity in teacher forcing."""

import functools
import math
from dataclasses import dataclass
from typing import Any

from transformer.data import Store
from transformer.experiment import Experiment
from transformer.losses import Loss, LossSums, batch_loss, cross_entropy


@dataclass(frozen=True)
class Likelihood:
    """Means over all target tokens of a set, `</s>` included."""

    loss: float  # label-smoothed cross-entropy, nats a piece: what training minimises
    nll: float  # negative log-likelihood, nats a piece
    accuracy: float  # share of pieces that the model thought most probable
    tokens: int  # target pieces

    @property
    def perplexity(self) -> float:
        """exp(nll): per word-piece, as AIAYN's Table 3 has it."""
        return math.exp(min(self.nll, 700.0))

    def perplexity_per_word(self, words: int) -> float:
        """The perplexity where the likelihood is spread over words (and sentence ends)."""
        return math.exp(min(self.nll * self.tokens / max(words, 1), 700.0))


class LikelihoodEvaluator:
    """Sums the loss over a whole split; compiled once for each shape of batch.

    The loss is the configured one where none is given.
    """

    def __init__(self, experiment: Experiment, store: Store, loss: Loss | None = None):
        self._layout = experiment.layout
        self._batches = experiment.eval_batches(store)
        training = experiment.config.training

        def sums(params: Any, batch: Any) -> LossSums:
            apply = functools.partial(experiment.model.apply, {"params": params})
            return batch_loss(
                apply,
                batch,
                loss or cross_entropy(training.label_smoothing, training.z_loss),
                chunks=training.loss_chunks,
                shards=self._layout.split("length"),
            )

        self._sums = self._layout.jit(sums, out_shardings=self._layout.replicated)

    def __call__(self, params: Any) -> Likelihood:
        parts = []
        for step in range(self._batches.plan.batches_per_epoch):
            rows = self._batches.shape(step)[0]
            local = self._batches.rows(step, *self._layout.local_rows(rows))
            parts.append(self._sums(params, self._layout.place(local, rows)))
        loss, nll, correct, weight = (
            sum(float(x) for x in xs)
            for xs in zip(*((p.loss, p.nll, p.correct, p.weight) for p in parts), strict=True)
        )
        return Likelihood(loss / weight, nll / weight, correct / weight, round(weight))
