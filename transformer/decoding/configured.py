"""The translator of an experiment, as its configuration says, and what is shown of translations."""

import dataclasses
from collections.abc import Callable
from typing import Any

from transformer.data import Blanks
from transformer.data.treebank import put_together
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
    config, layout = experiment.config, experiment.sentence_layout

    def jit(search: Callable[..., Any]) -> Callable[..., Any]:
        return layout.jit(search, out_shardings=layout.replicated)

    return Translator(
        experiment.model,
        params,
        Blanks(experiment.tokenizer) if config.data.masked else experiment.tokenizer,
        **dataclasses.asdict(config.decoding),
        row_multiple=experiment.row_multiple,
        length_multiple=config.data.length_multiple,
        max_length=max_length or config.data.max_length,
        jit=jit,
        place=layout.place,
    )


def shown_as(experiment: Experiment) -> Callable[[str, str], str]:
    """What is shown of a sentence and its translation: this, or where it is a tree, all of it.

    A model says no words of a tree: they are the sentence's.
    """
    if not experiment.config.data.of_trees:
        return lambda sentence, translation: translation
    return lambda sentence, brackets: put_together(brackets, sentence.split()).tree.bracketed()
