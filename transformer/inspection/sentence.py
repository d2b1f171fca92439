"""One sentence looked into: what a trained model makes of it, and what it attended to."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer.batch import BOS, EOS, Batch
from transformer.decoding import open_translator
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.inspection.attention_maps import WordMap, attention_maps, word_map
from transformer.inspection.figures import as_label, attention_png, attention_text


@dataclass(frozen=True)
class SentenceView:
    """A sentence, its translation, and the attention between their words."""

    source: str
    translation: str
    cross: WordMap  # mean over layers and heads
    use: str  # of attention: where a decoder stands alone, its target's rows of self-attention

    def text(self) -> str:
        """For the terminal: the matrix under the two sentences."""
        matrix = attention_text(self.cross.weights_TS, self.cross.target, self.cross.source)
        return f"{as_label(self.source)}  →  {as_label(self.translation)}\n\n{matrix}"

    def save_png(self, path: Path) -> None:
        """Draws the matrix as a picture."""
        attention_png(
            path,
            self.cross.weights_TS,
            self.cross.target,
            self.cross.source,
            title=f"{self.use}, mean over layers and heads",
        )


def check_line(text: str) -> None:
    """Raises UserError where a sentence has the end of a line in it, or controls but the tab."""
    for place, character in enumerate(text, start=1):
        if character != "\t" and unicodedata.category(character) in (
            "Cc",
            "Cs",
        ):  # Cs: bytes that were not UTF-8
            kind = "no text" if "\ud800" <= character <= "\udfff" else "a control character"
            raise UserError(
                f"character {place} of {text[:60]!r} is {character!r}, {kind}: give one line of "
                "text, in UTF-8"
            )


def inspect_sentence(
    experiment: Experiment, params: Any, sentence: str, translation: str | None = None
) -> SentenceView:
    """Attention between a sentence and a translation: the given one, or the model's own.

    Raises:
        UserError: a sentence is empty, no line of text, or longer than the model takes.
    """
    for text in filter(None, (sentence, translation)):
        check_line(text)
    if translation is None:
        translation = open_translator(experiment, params).translate([sentence])[0][0].text
    tokenizer = experiment.tokenizer
    source_ids, target_ids = tokenizer.encode([sentence, translation])
    if not source_ids or not target_ids:
        side = "sentence" if not source_ids else "translation"
        raise UserError(
            f"the {side} is empty, so there is nothing to attend to: "
            f"give {'one' if side == 'sentence' else 'one by --translation'}"
        )
    source_ids, target_ids = [*source_ids, EOS], [*target_ids, EOS]
    rows = experiment.layout.split("batch")
    batch = Batch.of([source_ids] * rows, [target_ids] * rows)
    with experiment.sentence_layout as layout:
        maps = attention_maps(experiment.model, params, *layout.place((batch.source, batch.target)))
    if maps.cross_NBHTS is not None:
        use, weights_NBHTS, key_ids = "Cross-attention", maps.cross_NBHTS, source_ids
    elif maps.decoder_self_NBHTT is not None:  # alone: over the source, and what is written of it
        use, key_ids = "Self-attention", [*source_ids, BOS, *target_ids[:-1]]
        weights_NBHTS = maps.decoder_self_NBHTT[:, :, :, len(source_ids) :]
    else:
        raise UserError(
            f"model.family={experiment.config.model.family} writes its words without attention to "
            "the source's: there is nothing to show"
        )
    weights_TS = np.asarray(jax.device_get(weights_NBHTS))[:, 0].mean((0, 1))
    cross = word_map(weights_TS, tokenizer.pieces(target_ids), tokenizer.pieces(key_ids))
    return SentenceView(sentence, translation, cross, use)
