"""What a trained model looks at: attention weights by piece and by word, as text and pictures."""

from transformer.inspection.attention_maps import (
    AttentionMaps,
    WordMap,
    attention_maps,
    word_map,
    words,
)
from transformer.inspection.figures import attention_png, attention_text
from transformer.inspection.sentence import SentenceView, inspect_sentence

__all__ = [
    "AttentionMaps",
    "SentenceView",
    "WordMap",
    "attention_maps",
    "attention_png",
    "attention_text",
    "inspect_sentence",
    "word_map",
    "words",
]
