"""BLEU and chrF with sacreBLEU's signatures, and exact match: hypotheses against references."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from transformer.data.normal_forms import composed
from transformer.dotted import resolve
from transformer.errors import UserError
from transformer.evaluation.bleu_tokenizers import suited

# A measure of one's own: of translations and their references; it goes by the function's name.
Metric = Callable[[Sequence[str], Sequence[str]], float]


def named_metrics(names: Sequence[str]) -> list[Metric]:
    """The functions of `evaluation.metrics`. Raises UserError where one is not there."""
    metrics = [resolve(name, "evaluation.metrics") for name in names]
    for name, metric in zip(names, metrics, strict=True):
        if not callable(metric):
            raise UserError(f"evaluation.metrics has {name!r}, which is no function")
    return metrics


def measure(
    metrics: Sequence[Metric], translations: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """What each measure of one's own says, by its name."""
    return {_name_of(metric): float(metric(translations, references)) for metric in metrics}


def _name_of(metric: Metric) -> str:
    return getattr(metric, "__name__", type(metric).__name__)


@dataclass(frozen=True)
class Scores:
    """A corpus's scores, each from 0 to 100, higher is better."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    exact_match: float  # per cent of the sentences that equal their reference, outer spaces aside
    sentences: int
    bleu_raw: float | None  # BLEU of both as they are spelled, where they are not in NFC

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, JSON-ready."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """A row a score for people to read: its name, its value, what exactly it is."""
        rows = [
            ("BLEU", self.bleu, self.bleu_signature),
            ("chrF", self.chrf, self.chrf_signature),
            ("exact match", self.exact_match, f"% of {self.sentences:,} sentences"),
        ]
        if self.bleu_raw is not None:
            rows.insert(1, ("BLEU, raw", self.bleu_raw, "as spelled; all others compare in NFC"))
        return "\n".join(f"{name:<11}  {value:6.2f}  {note}" for name, value, note in rows)


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str | None = None,
    *,
    as_spelled: bool = False,
) -> Scores:
    """Scores of a whole set of plain sentences (not tokenised, not lowercased), one reference each.

    BLEU is Papineni et al. 2002 as Post 2018 fixed it (cased, corpus level), chrF is Popović 2015.

    Args:
        hypotheses: what is scored.
        references: what is right.
        tokenizer: sacreBLEU's name of what cuts sentences into words; None: the one that suits the
            script of the references.
        as_spelled: compare code points; False: characters, however they are spelled (in NFC).

    Raises:
        UserError: there is nothing to score, or the two differ in length.
    """
    if len(hypotheses) != len(references):
        raise UserError(
            f"there are {len(hypotheses)} hypotheses for {len(references)} references: "
            "give one line for each, in the same order"
        )
    if not references:
        raise UserError("there are no sentences to score: give at least one and its reference")
    bleu = BLEU(tokenize=tokenizer or suited(references), lowercase=False)
    chrf = CHRF()
    raw = hypotheses, references
    if not as_spelled:
        hypotheses, references = ([composed(text) for text in side] for side in raw)
    differ = list(hypotheses) != list(raw[0]) or list(references) != list(raw[1])
    equal = sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True))
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
        exact_match=100.0 * equal / len(references),
        sentences=len(references),
        bleu_raw=bleu.corpus_score(raw[0], [raw[1]]).score if differ else None,
    )
