"""How sentences are translated, and how translations are scored."""

from dataclasses import dataclass

from transformer.config.fields import Section, checked, choice, not_negative, positive, require
from transformer.dotted import is_dotted


@dataclass(frozen=True)
class DecodingConfig(Section, section="decoding"):
    """How sentences are translated."""

    beam: int = positive(4)
    """Beam width, W; 1 is greedy search."""
    length_penalty: str = choice("gnmt", "power")
    """gnmt: ((5 + length) / 6)^alpha (AIAYN). power: length^alpha."""
    alpha: float = not_negative(0.6)
    """The length penalty's exponent."""
    extra_length: int = not_negative(50)
    """Output tokens at most: the source's + this (AIAYN §6.1)."""
    n_best: int = positive(1)
    """Translations given for each sentence, best first; at most the beam."""
    tokens_per_batch: int = positive(4_096)
    """Source tokens translated together, padding included."""
    weights: str = choice("float", "int8")
    """int8: quantized weights (Transformers alone): smaller, on CPUs mostly faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.n_best <= self.beam,
            f"decoding.n_best is {self.n_best} but a beam of {self.beam} gives no more than that",
        )


# sacreBLEU's tokenizers that download nothing, and those that fetch a model from the network.
BLEU_TOKENIZERS = ("auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none")
DOWNLOADED = ("spm", "flores101", "flores200", "spBLEU-1K")


def _bleu_tokenizer(key: str, value: str) -> None:
    names = ", ".join(BLEU_TOKENIZERS)
    require(
        value not in DOWNLOADED,
        f"{key} is {value!r}, which downloads a model, and nothing is downloaded here: choose one "
        f"of {names}",
    )
    require(value in BLEU_TOKENIZERS, f"{key} is {value!r}; choose one of {names}")


def _metrics(key: str, value: tuple[str, ...]) -> None:
    for name in value:
        require(is_dotted(name), f'{key} has {name!r}; give functions, "module:function" each')


@dataclass(frozen=True)
class EvaluationConfig(Section, section="evaluation"):
    """How translations are scored."""

    bleu_tokenizer: str = checked("auto", _bleu_tokenizer)
    """sacreBLEU's, which says what a word is. auto: by the script of the references, once per run.
    13a: words between spaces. intl, zh, ja-mecab (extra `ja`), ko-mecab (extra `ko`). char: for
    scripts without spaces. none."""
    metrics: tuple[str, ...] = checked((), _metrics)
    """Further measures of your own, "module:function" each: of translations and references, two
    lists, a number, under the function's name."""
