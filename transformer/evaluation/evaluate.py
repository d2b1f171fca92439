"""Translates a split of the corpus and scores it: what `transformer evaluate` prints."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer import files
from transformer.data import Pair
from transformer.data.casa_roja import word_for_word
from transformer.data.treebank import put_together
from transformer.decoding import open_translator
from transformer.evaluation import bleu_tokenizers
from transformer.evaluation.brackets import BracketScores, score_brackets
from transformer.evaluation.perplexity import Likelihood, LikelihoodEvaluator
from transformer.evaluation.scores import Scores, score
from transformer.experiment import Experiment


@dataclass(frozen=True)
class Evaluation:
    """What a split of the corpus says of a model."""

    split: str
    likelihood: Likelihood
    perplexity_per_word: float | None  # None of masked text, of which only some words are asked for
    scores: Scores
    baseline: Scores | None  # casa roja: a word-for-word dictionary on the same sentences
    brackets: BracketScores | None  # of treebanks
    sources: list[str]
    references: list[str]
    translations: list[str]
    trees: list[str]  # of treebanks: what was translated, put together with the words; else none

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the sentences."""
        return {
            "split": self.split,
            "sentences": len(self.sources),
            **dataclasses.asdict(self.likelihood),
            "perplexity": self.likelihood.perplexity,
            "perplexity_per_word": self.perplexity_per_word,
            **self.scores.as_dict(),
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
        ]
        if self.brackets:
            rows.append(self.brackets.table())
        if self.baseline:
            rows.append("a word-for-word dictionary on the same sentences:")
            rows.append(self.baseline.table())
        return "\n".join(rows)

    def write_texts(self, folder: Path) -> None:
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
    likelihood = LikelihoodEvaluator(experiment, split)(params)
    pairs = list(experiment.corpus.pairs(split))
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    longest = int(experiment.store(split).lengths.max())
    translator = open_translator(experiment, params, max_length=longest)
    translations = [best[0].text for best in translator.translate(sources)]
    baseline, brackets, trees = None, None, []
    bleu_tokenizer = bleu_tokenizers.of_run(experiment, lambda: references)
    data = experiment.config.data
    if data.source == "casa_roja" and data.side == "both":
        words_alone = [word_for_word(source) for source in sources]
        baseline = score(words_alone, references, bleu_tokenizer)
    if data.of_trees:
        brackets, trees = _of_trees(translations, pairs)
    # A sentence's end is predicted like a word, so it counts as one.
    words = sum(len(reference.split()) + 1 for reference in references)
    return Evaluation(
        split,
        likelihood,
        None if data.masked else likelihood.perplexity_per_word(words),
        score(translations, references, bleu_tokenizer),
        baseline,
        brackets,
        sources,
        references,
        translations,
        trees,
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
