"""The log-probability of given translations, token by token, in teacher forcing."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer.batch import EOS, Batch, Source, Target
from transformer.decoding.input_shapes import InputShapes
from transformer.decoding.translate import TextCoder
from transformer.errors import UserError
from transformer.models.seq2seq import Seq2Seq
from transformer.sharding import Layout


@dataclass(frozen=True)
class TargetScore:
    """What a model thinks of one translation."""

    log_prob: float  # natural, of the tokens and the </s> behind them
    tokens: tuple[int, ...]  # the translation's, </s> included
    token_log_probs: tuple[float, ...]  # of each of these


class Scorer:
    """A model, its parameters and its tokenizer: scores pairs of sentences.

    Args:
        model: any family; only the calls of its contract are used.
        params: its collection "params".
        tokenizer: text to ids.
        tokens_per_batch: source tokens scored together at most, padding included.
        shapes: what sentences are padded to; both sides to the same length.
        layout: the mesh to compute on, lengths whole; None: one device.
    """

    def __init__(
        self,
        model: Seq2Seq,
        params: Any,
        tokenizer: TextCoder,
        *,
        tokens_per_batch: int = 4_096,
        shapes: InputShapes | None = None,
        layout: Layout | None = None,
    ):
        self.params = params
        self._tokenizer, self._tokens_per_batch = tokenizer, tokens_per_batch
        self._shapes, self._layout = shapes or InputShapes(), layout or Layout.single()

        def log_probs(params: Any, batch: Batch) -> Float[Array, "B T"]:
            variables = {"params": params}
            memory = model.apply(variables, batch.source, method="encode")
            hidden = model.apply(variables, batch.target, memory, method="decode")
            logits_BTV: Any = model.apply(variables, hidden, method="logits")
            labels_BT1 = batch.target.labels[..., None]
            label_BT = jnp.take_along_axis(logits_BTV, labels_BT1, axis=-1)[..., 0]
            return label_BT - jax.nn.logsumexp(logits_BTV, axis=-1)

        replicated = self._layout.replicated
        self._log_probs = self._layout.jit(log_probs, out_shardings=replicated)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[TargetScore]:
        """Scores each (source, translation), in the order of the pairs.

        Raises:
            UserError: a side is longer than the model takes.
        """
        sources, targets = (
            [[*ids, EOS] for ids in self._tokenizer.encode([pair[side].strip() for pair in pairs])]
            for side in (0, 1)
        )
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            longest = max(len(source), len(target))
            if longest > self._shapes.max_length:
                raise UserError(
                    f"pair {i + 1} has {longest} tokens on a side, </s> included, and the model "
                    f"takes {self._shapes.max_length}"
                )
            by_length[self._shapes.length(longest, len(pairs))].append(i)
        scores: dict[int, TargetScore] = {}
        for length, members in by_length.items():
            multiple = self._shapes.row_multiple
            most = max(self._tokens_per_batch // length // multiple * multiple, multiple)
            rows = min(most, len(members) + -len(members) % multiple)
            for first in range(0, len(members), rows):
                chosen = members[first : first + rows]
                batch = Batch(
                    Source.of([sources[i] for i in chosen], (rows, length)),
                    Target.of([targets[i] for i in chosen], (rows, length)),
                )
                log_probs_BT = np.asarray(self._log_probs(self.params, self._layout.place(batch)))
                for i, row in zip(chosen, log_probs_BT, strict=False):
                    own = row[: len(targets[i])].tolist()
                    scores[i] = TargetScore(sum(own), tuple(targets[i]), tuple(own))
        return [scores[i] for i in range(len(pairs))]
