"""Memory to words: searches over a model's next-token scores, and the translation of sentences."""

from transformer.decoding.beam import beam_search
from transformer.decoding.factory import input_shapes, open_scorer, open_translator, shown_as
from transformer.decoding.greedy import greedy_search
from transformer.decoding.input_shapes import SHORT, InputShapes
from transformer.decoding.lines import BadLines, Form, translate_lines
from transformer.decoding.scoring import Scorer, TargetScore
from transformer.decoding.search import Hypotheses
from transformer.decoding.translate import Translation, Translator

__all__ = [
    "SHORT",
    "BadLines",
    "Form",
    "Hypotheses",
    "InputShapes",
    "Scorer",
    "TargetScore",
    "Translation",
    "Translator",
    "beam_search",
    "greedy_search",
    "input_shapes",
    "open_scorer",
    "open_translator",
    "shown_as",
    "translate_lines",
]
