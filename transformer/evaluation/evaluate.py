"""Translates a split of the corpus and scores it: what `transformer evaluate` prints."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer import files
from transformer.data import Corpus, OneSide, Pair, Store, Text
from transformer.data.casa_roja import word_for_word
from transformer.data.treebank import put_together
from transformer.decoding import open_translator
from transformer.errors import UserError
from transformer.evaluation import bleu_tokenizers
from transformer.evaluation.brackets import BracketScores, score_brackets
from transformer.evaluation.perplexity import Likelihood, LikelihoodEvaluator
from transformer.evaluation.scores import Scores, measure, named_metrics, score
from transformer.experiment import Experiment

LONGEST = 8  # times data.max_length that a line of a file may have


@dataclass(frozen=True)
class Evaluation:
    """What a split of the corpus says of a model."""

    split: str
    likelihood: Likelihood
    perplexity_per_word: float | None  # None of masked text, of which only some words are asked for
    scores: Scores
    sources: list[str]
    references: list[str]
    translations: list[str]
    measures: Mapping[str, float] = field(default_factory=dict)  # one's own: evaluation.metrics
    baseline: Scores | None = None  # casa roja: a word-for-word dictionary on the same sentences
    brackets: BracketScores | None = None  # of treebanks
    trees: Sequence[str] = ()  # of treebanks: what was translated, put together with the words

    @property
    def bleu(self) -> float:
        return self.scores.bleu

    @property
    def chrf(self) -> float:
        return self.scores.chrf

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the sentences."""
        return {
            "split": self.split,
            "sentences": len(self.sources),
            **dataclasses.asdict(self.likelihood),
            "perplexity": self.likelihood.perplexity,
            "perplexity_per_word": self.perplexity_per_word,
            **self.scores.as_dict(),
            **{k: v if math.isfinite(v) else None for k, v in self.measures.items()},
            "word_for_word": self.baseline.as_dict() if self.baseline else None,
            "brackets": self.brackets.as_dict() if self.brackets else None,
        }

    def table(self) -> str:
        """A row a measure, for people."""
        rows = [
            f"loss         {self.likelihood.loss:6.3f}  nats a piece, label-smoothed",
            f"perplexity   {self.likelihood.perplexity:6.2f}  a piece, "
            + (f"{per_word:.2f} a word " if (per_word := self.perplexity_per_word) else "")
            + f"({self.likelihood.tokens:,} pieces)",
            f"accuracy     {100.0 * self.likelihood.accuracy:6.2f}  % of these pieces are thought "
            "most probable",
            self.scores.table(),
            *(f"{name:<11}  {value:6.2f}" for name, value in self.measures.items()),
        ]
        if self.brackets:
            rows.append(self.brackets.table())
        if self.baseline:
            rows.append("a word-for-word dictionary on the same sentences:")
            rows.append(self.baseline.table())
        return "\n".join(rows)

    def write_texts(self, folder: files.AnyPath) -> None:
        """Writes what was translated, a sentence a line: translations.SPLIT.txt; and the trees."""
        for name, lines in (("translations", self.translations), ("trees", self.trees)):
            if lines:
                path = folder / f"{name}.{self.split}.txt"
                files.write(path, "\n".join(lines) + "\n")


def evaluate(experiment: Experiment, params: Any, split: str) -> Evaluation:
    """Likelihood and translation scores of a split: `dev` or `test`.

    Raises:
        UserError: the corpus has no such split.
    """
    corpus, store = experiment.corpus, experiment.store(split)
    pairs = list(corpus.pairs(split))
    references = [pair.target for pair in pairs]
    tokenizer = bleu_tokenizers.of_run(experiment, lambda: references)
    evaluation = _evaluated(experiment, params, split, pairs, store, tokenizer)
    data = experiment.config.data
    if data.source == "casa_roja" and data.side == "both":
        words_alone = [word_for_word(source) for source in evaluation.sources]
        baseline = score(words_alone, references, tokenizer)
        evaluation = dataclasses.replace(evaluation, baseline=baseline)
    if data.of_trees:
        brackets, trees = _of_trees(evaluation.translations, pairs)
        evaluation = dataclasses.replace(evaluation, brackets=brackets, trees=trees)
    return evaluation


def evaluate_files(experiment: Experiment, params: Any, source: str, reference: str) -> Evaluation:
    """Likelihood and translation scores of two aligned text files, which are not the corpus's.

    Raises:
        UserError: a file cannot be read, or they differ in length.
    """
    corpus: Corpus = Text(test_source=source, test_target=reference)
    if experiment.config.data.side != "both":
        corpus = OneSide(corpus, experiment.config.data.side)
    store, pairs = experiment.data.store_of(corpus, "test"), list(corpus.pairs("test"))
    most = LONGEST * experiment.config.data.max_length
    if (lengths := store.lengths.max(axis=1)).max() > most:
        raise UserError(
            f"{source} and {reference}: line {int(lengths.argmax()) + 1:,} has "
            f"{int(lengths.max()):,} tokens on a side, more than {LONGEST} times data.max_length "
            "of the model: split it"
        )
    tokenizer = bleu_tokenizers.of_files(experiment, [pair.target for pair in pairs])
    name = Path(reference).name
    return _evaluated(experiment, params, f"file.{name}", pairs, store, tokenizer)


def _evaluated(
    experiment: Experiment,
    params: Any,
    split: str,
    pairs: list[Pair],
    store: Store,
    bleu_tokenizer: str,
) -> Evaluation:
    metrics = named_metrics(experiment.config.evaluation.metrics)
    likelihood = LikelihoodEvaluator(experiment, store)(params)
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    longest = int(store.lengths.max())
    translator = open_translator(experiment, params, max_length=longest)
    translations = [best[0].text for best in translator.translate(sources)]
    # A sentence's end is predicted like a word, so it counts as one.
    words = sum(len(reference.split()) + 1 for reference in references)
    return Evaluation(
        split,
        likelihood,
        None if experiment.config.data.masked else likelihood.perplexity_per_word(words),
        score(translations, references, bleu_tokenizer),
        sources,
        references,
        translations,
        measure(metrics, translations, references),
    )


def _of_trees(
    translations: Sequence[str], pairs: Sequence[Pair]
) -> tuple[BracketScores, list[str]]:
    """The scores of linearised trees, and the trees on a line each."""
    parses, right = [], []
    for translation, pair in zip(translations, pairs, strict=True):
        words, tags = pair.source.split(" "), pair.tags.split(" ")
        if not pair.source:  # a tree of empty elements alone
            words, tags = [], []
        parses.append(put_together(translation, words))
        right.append(put_together(pair.target, words, tags).tree)
    scores = score_brackets(
        [parse.tree for parse in parses], right, sum(parse.mended for parse in parses)
    )
    return scores, [parse.tree.bracketed() for parse in parses]
