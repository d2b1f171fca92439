"""Masked language modelling: some source tokens are hidden, and their text is what is asked for.

Of the tokens chosen 80 % become the mask, 10 % any other piece, and 10 % stay (Devlin et al. 2019,
§3.1); a target token counts where the source's same one was chosen. </s> is a token like others
here, unlike there, so that decoding learns where a sentence ends. At least one of each sentence is
chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from transformer.batch import EOS, Batch
from transformer.data.tokenizers import MASK, Tokenizer
from transformer.rng import Stream

MASKED, REPLACED = 0.8, 0.1  # shares of those chosen; the others stay
FIRST = 4 + 256  # of the pieces that are neither special nor single bytes
BLANK = "<mask>"  # how people write one


@dataclass(frozen=True)
class Masking:
    """What is masked, a function of (seed, step, example): so the same however hosts share rows."""

    share: float  # of the source's tokens
    seed: int
    vocab_size: int  # of the tokenizer

    def __call__(
        self, batch: Batch, examples: Int[np.ndarray, " n"], position: int | None
    ) -> Batch:
        """Some rows with their source masked and their target weighted.

        Args:
            batch: source and target are the same text, NumPy arrays.
            examples: store indices of its sentences, row by row.
            position: of the batch among a run's; None: of evaluation, always masked alike.
        """
        # In row order, a batch's tokens are its sentences one after another, on both sides.
        source, target = np.asarray(batch.source.segments) > 0, batch.target.segments > 0
        tokens = np.asarray(batch.source.ids)[source]
        chosen, tokens = self._draw(tokens, examples.tolist(), position)
        ids, weights = np.array(batch.source.ids), np.zeros_like(batch.target.weights)
        ids[source], weights[target] = tokens, chosen
        return Batch(batch.source.replace(ids=ids), batch.target.replace(weights=weights))  # pyright: ignore

    def _draw(
        self, tokens: Int[np.ndarray, " n"], examples: Sequence[int], position: int | None
    ) -> tuple[Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Which tokens of these sentences are chosen, and what stands for each token."""
        chosen, tokens = np.zeros(len(tokens), bool), tokens.copy()
        ends = np.flatnonzero(tokens == EOS) + 1
        starts = np.concatenate([[0], ends])[:-1]
        step = 0 if position is None else position + 1
        for example, start, end in zip(examples, starts, ends, strict=True):
            key = np.random.SeedSequence([self.seed, Stream.MASKING, step, example])
            random = np.random.Generator(np.random.Philox(key))
            choice, kind = random.random((2, end - start))
            here = chosen[start:end]
            here[:] = (choice < self.share) | (choice == choice.min())
            others = random.integers(FIRST, self.vocab_size, end - start)
            masked = tokens[start:end]
            masked[here & (kind < MASKED)] = MASK
            replaced = here & (kind >= MASKED) & (kind < MASKED + REPLACED)
            masked[replaced] = others[replaced]
        return chosen, tokens


class Blanks:
    """A tokenizer for text with blanks to fill in, each written as `<mask>` in a piece's place."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.decode = tokenizer.decode

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, the mask's for each blank."""
        parts = [text.split(BLANK) for text in texts]
        encoded = iter(self._tokenizer.encode([part for text in parts for part in text]))
        result = []
        for text in parts:
            ids = next(encoded)
            for _ in text[1:]:
                ids = [*ids, MASK, *next(encoded)]
            result.append(ids)
        return result
