"""A run directory opened: translate with it, score, evaluate, look into it.

run = transformer.open_run("runs/casa_roja")
run.translate(["la casa roja"])[0][0].text                    # 'the red house'
run.score([("la casa roja", "the red house")])[0].log_prob    # natural logarithm
run.evaluate("test").bleu
run.attention("la casa roja").save_png("attention.png")
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from transformer import files, runtime
from transformer.checkpoints import load_params
from transformer.config import Config
from transformer.data import Tokenizer
from transformer.decoding import (
    Scorer,
    TargetScore,
    Translation,
    Translator,
    open_scorer,
    open_translator,
)
from transformer.errors import UserError
from transformer.evaluation import Evaluation, evaluate, evaluate_files
from transformer.experiment import Experiment
from transformer.inspection import SentenceInspector, SentenceView
from transformer.models import Seq2Seq

Name = str | os.PathLike[str]

# These devices, and the attention backend that serves on them: not those it was trained on.
HERE = {
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "sequence": 1},
    "model": {"attention": {"backend": "auto"}},
}


class Run:
    """A trained run: its model, parameters, tokenizer and configuration, and what to do with them.

    Attributes:
        experiment: its parts, as its configuration says.
        params: the parameters of the chosen checkpoint.
        checkpoint: a line that says which it is.
    """

    def __init__(self, experiment: Experiment, params: Any, checkpoint: str):
        self.experiment, self.params, self.checkpoint = experiment, params, checkpoint

    @property
    def workdir(self) -> files.AnyPath:
        return self.experiment.workdir

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def model(self) -> Seq2Seq:
        return self.experiment.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.experiment.tokenizer

    @functools.cached_property
    def translator(self) -> Translator:
        """Translates sentences, as `config.decoding` says."""
        return open_translator(self.experiment, self.params)

    @functools.cached_property
    def _scorer(self) -> Scorer:
        return open_scorer(self.experiment, self.params)

    @functools.cached_property
    def _inspector(self) -> SentenceInspector:
        return SentenceInspector(self.experiment, self.params, self.translator)

    def translate(self, sentences: Sequence[str]) -> list[list[Translation]]:
        """Translates sentences; each has `config.decoding.n_best` translations, best first.

        Raises:
            UserError: a sentence is longer than the model takes.
        """
        return self.translator.translate(sentences)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[TargetScore]:
        """Scores given translations: log-probabilities, of the whole and of each token.

        Raises:
            UserError: a side is longer than the model takes.
        """
        return self._scorer.score(pairs)

    def evaluate(
        self, split: str = "test", *, source: Name | None = None, reference: Name | None = None
    ) -> Evaluation:
        """Scores the model on a split of its corpus, "dev" or "test"; or on two aligned files.

        Args:
            split: of the corpus.
            source: a text file, a sentence a line, in place of a split.
            reference: the file of its translations.

        Raises:
            UserError: the corpus has no such split, a file is missing, or they differ in length.
        """
        if source is None and reference is None:
            return evaluate(self.experiment, self.params, split)
        if not source or not reference:
            raise UserError("to evaluate on files takes both of them: a source and a reference")
        paths = os.fspath(source), os.fspath(reference)
        return evaluate_files(self.experiment, self.params, *paths)

    def attention(self, sentence: str, translation: str | None = None) -> SentenceView:
        """Looks at what a sentence's translation, given or the model's own, attended to.

        Raises:
            UserError: a sentence is empty, no line of text, or longer than the model takes.
        """
        return self._inspector.inspect(sentence, translation)


def open_run(workdir: Name, checkpoint: str | int = "average", **decoding: Any) -> Run:
    """Opens a run directory on this process's devices.

    Args:
        workdir: what `transformer train --workdir` was given.
        checkpoint: "average" (of the last `checkpoints.average`), "last", "best", or a step.
        decoding: keys of `config.decoding` to change, such as `beam=1`.

    Raises:
        UserError: there is no run, no such checkpoint, it is damaged, or a key cannot have the
            value.
    """
    runtime.prepare()
    experiment = Experiment.open(workdir, **HERE)
    if decoding:
        try:
            chosen = dataclasses.replace(experiment.config.decoding, **decoding)
            config = dataclasses.replace(experiment.config, decoding=chosen)
        except UserError as error:
            named = [f"--{name.replace('_', '-')}={value}" for name, value in decoding.items()]
            raise UserError(f"{' '.join(named)}: {error}") from error
        experiment = Experiment(config, workdir)
    return Run(experiment, *load_params(experiment, str(checkpoint)))
