"""One sentence looked into: what a trained model makes of it, and what it attended to."""

import os
import unicodedata
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from transformer.batch import BOS, EOS, Batch, Source, Target
from transformer.decoding import SHORT, Translator, input_shapes
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.inspection.attention_maps import (
    AttentionMaps,
    AttentionRecorder,
    WordMap,
    word_map,
)
from transformer.inspection.figures import as_label, attention_png, attention_text


@dataclass(frozen=True)
class SentenceView:
    """A sentence, its translation, and the attention between their words and pieces.

    Attributes:
        source, translation: the texts.
        source_pieces, target_pieces: their S and T pieces, `</s>` included.
        maps: the weights by layer and head, of these pieces; float32, on the host, B = 1.
        use: the use of attention that `cross` shows.
        cross: its mean over layers and heads, by word.
    """

    source: str
    translation: str
    source_pieces: list[str]
    target_pieces: list[str]
    maps: AttentionMaps
    use: str
    cross: WordMap

    def text(self) -> str:
        """For the terminal: the matrix under the two sentences."""
        matrix = attention_text(self.cross.weights_TS, self.cross.target, self.cross.source)
        return f"{as_label(self.source)}  →  {as_label(self.translation)}\n\n{matrix}"

    def save_png(self, path: str | os.PathLike[str]) -> None:
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


class SentenceInspector:
    """Looks into one sentence after another; what is compiled for one serves the next."""

    def __init__(self, experiment: Experiment, params: Any, translator: Translator):
        self._experiment, self._params, self._translator = experiment, params, translator
        self._record = AttentionRecorder(experiment.model, experiment.sentence_layout)
        self._shapes = input_shapes(experiment, experiment.config.data.max_length)

    def inspect(self, sentence: str, translation: str | None = None) -> SentenceView:
        """Attention between a sentence and a translation: the given one, or the model's own.

        Raises:
            UserError: a sentence is empty, no line of text, or longer than the model takes.
        """
        for text in filter(None, (sentence, translation)):
            check_line(text)
        if translation is None:
            translation = self._translator.translate([sentence])[0][0].text
        tokenizer = self._experiment.tokenizer
        source_ids, target_ids = tokenizer.encode([sentence, translation])
        if not source_ids or not target_ids:
            side = "sentence" if not source_ids else "translation"
            how = " by --translation=TEXT, in Python translation=TEXT" if source_ids else ""
            raise UserError(f"the {side} is empty, so there is nothing to attend to: give one{how}")
        source_ids, target_ids = [*source_ids, EOS], [*target_ids, EOS]
        maps = self._maps(source_ids, target_ids)
        if maps.cross_NBHTS is not None:
            use, weights_NBHTS, key_ids = "Cross-attention", maps.cross_NBHTS, source_ids
        elif maps.decoder_self_NBHTT is not None:  # alone: over the source, and what is written
            use, key_ids = "Self-attention", [*source_ids, BOS, *target_ids[:-1]]
            weights_NBHTS = maps.decoder_self_NBHTT[:, :, :, len(source_ids) :]
        else:
            raise UserError(
                f"model.family={self._experiment.config.model.family} writes its words without "
                "attention to the source's: there is nothing to show"
            )
        source_pieces, target_pieces = map(tokenizer.pieces, (source_ids, target_ids))
        mean_TS = weights_NBHTS[:, 0].mean((0, 1))
        cross = word_map(mean_TS, target_pieces, tokenizer.pieces(key_ids))
        return SentenceView(sentence, translation, source_pieces, target_pieces, maps, use, cross)

    def _maps(self, source_ids: list[int], target_ids: list[int]) -> AttentionMaps:
        """The weights of one pair, without what it was padded with."""
        rows = self._experiment.layout.split("batch")
        S, T = len(source_ids), len(target_ids)
        batch = Batch(
            Source.of([source_ids] * rows, (rows, self._padded(S))),
            Target.of([target_ids] * rows, (rows, self._padded(T))),
        )
        with self._experiment.sentence_layout as layout:
            maps = self._record(self._params, *layout.place((batch.source, batch.target)))
        # A decoder alone has its source before its target.
        writes = T if maps.cross_NBHTS is not None or maps.encoder_self_NBHSS is not None else S + T

        def trimmed(weights: Any, queries: int, keys: int) -> Any:
            if weights is None:
                return None
            return np.asarray(jax.device_get(weights))[:, :1, :, :queries, :keys]

        return AttentionMaps(
            trimmed(maps.encoder_self_NBHSS, S, S),
            trimmed(maps.decoder_self_NBHTT, writes, writes),
            trimmed(maps.cross_NBHTS, T, S),
        )

    def _padded(self, length: int) -> int:
        """The length that a side is padded to; a translation may be longer than sources are."""
        most = self._shapes.max_length
        return self._shapes.length(length, 1) if length <= most else length + -length % SHORT
