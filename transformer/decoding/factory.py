"""Makes an experiment's translator, as its configuration says; and how translations are shown."""

from collections.abc import Callable
from typing import Any

from transformer.data import Blanks
from transformer.data.treebank import put_together
from transformer.decoding.input_shapes import InputShapes
from transformer.decoding.scoring import Scorer
from transformer.decoding.translate import Translator
from transformer.experiment import Experiment


def open_translator(
    experiment: Experiment, params: Any, *, max_length: int | None = None
) -> Translator:
    """A translator on the experiment's mesh, with its tokenizer and its `decoding` keys.

    Every process gives it the same sentences and gets all translations back. Sentences may have
    `max_length` tokens, `</s>` included; where it is None, `data.max_length`. A model that learned
    from masked text takes text with `<mask>` in it.
    """
    config = experiment.config
    return Translator(
        experiment.model,
        params,
        Blanks(experiment.tokenizer) if config.data.masked else experiment.tokenizer,
        config.decoding,
        shapes=input_shapes(experiment, max_length or config.data.max_length),
        layout=experiment.sentence_layout,
    )


def open_scorer(experiment: Experiment, params: Any) -> Scorer:
    """A scorer on the experiment's mesh, with its tokenizer."""
    config = experiment.config
    return Scorer(
        experiment.model,
        params,
        experiment.tokenizer,
        tokens_per_batch=config.decoding.tokens_per_batch,
        shapes=input_shapes(experiment, config.data.max_length),
        layout=experiment.sentence_layout,
    )


def input_shapes(experiment: Experiment, max_length: int) -> InputShapes:
    """The shapes that sentences of an experiment are padded to."""
    return InputShapes(
        max_length=max_length,
        row_multiple=experiment.row_multiple,
        length_multiple=experiment.config.data.length_multiple,
    )


def shown_as(experiment: Experiment) -> Callable[[str, str], str]:
    """What is shown of a sentence and its translation: this, or where it is a tree, all of it.

    A model says no words of a tree: they are the sentence's.
    """
    if not experiment.config.data.of_trees:
        return lambda sentence, translation: translation
    return lambda sentence, brackets: put_together(brackets, sentence.split()).tree.bracketed()
