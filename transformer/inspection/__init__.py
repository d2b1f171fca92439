"""What a trained model looks at: attention weights by piece and by word, as text and pictures."""

from transformer.inspection.attention_maps import (
    AttentionMaps,
    AttentionRecorder,
    WordMap,
    attention_maps,
    word_map,
    words,
)
from transformer.inspection.figures import attention_png, attention_text
from transformer.inspection.sentence import SentenceInspector, SentenceView

__all__ = [
    "AttentionMaps",
    "AttentionRecorder",
    "SentenceInspector",
    "SentenceView",
    "WordMap",
    "attention_maps",
    "attention_png",
    "attention_text",
    "word_map",
    "words",
]
