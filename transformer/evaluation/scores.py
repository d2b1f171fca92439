"""BLEU and chrF with sacreBLEU's signatures, and exact match: hypotheses against references."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from transformer.data.normal_forms import composed
from transformer.dotted import resolve
from transformer.errors import UserError
from transformer.evaluation.bleu_tokenizers import suited

log = logging.getLogger(__name__)

# The names of what is measured anyway, while training and after it.
OURS = {
    *("loss", "nll", "perplexity", "perplexity_per_word", "accuracy", "tokens", "split"),
    *("sentences", "bleu", "bleu_raw", "bleu_signature", "chrf", "chrf_signature", "exact_match"),
    *("brackets", "word_for_word", "checkpoint", "kind", "step", "samples", "clock"),
}

# A measure of one's own: of translations and their references; it goes by the function's name.
Metric = Callable[[Sequence[str], Sequence[str]], float]


def named_metrics(names: Sequence[str]) -> list[Metric]:
    """The functions of `evaluation.metrics`. Raises UserError where one is not there."""
    return checked_metrics([resolve(name, "evaluation.metrics") for name in names])


def checked_metrics(metrics: Any) -> list[Metric]:
    """The measures, if each is a function with a name of its own.

    Raises:
        UserError: one is no function, or goes by the name of another or of one of ours.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise UserError(f"metrics is {metrics!r}; give a list of functions")
    names: set[str] = set()
    for metric in metrics:
        if not callable(metric):
            raise UserError(f"metrics has {metric!r}, which is no function")
        if (name := _name_of(metric)) in OURS | names:
            raise UserError(
                f"metrics has two measures called {name!r}, or one of ours: rename the function"
            )
        names.add(name)
    return [*metrics]


def measure(
    metrics: Sequence[Metric], translations: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """What each measure of one's own says, by its name; not a number where it fails, and why."""
    values = {}
    for metric in metrics:
        name = _name_of(metric)
        try:
            values[name] = float(metric([*translations], [*references]))
        except Exception as error:  # another's code: what was trained must not be lost for it
            log.warning("the metric %s fails: %s: %s", name, type(error).__name__, error)
            values[name] = math.nan
    return values


def _name_of(metric: Any) -> str:
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
