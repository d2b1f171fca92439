"""Cutting words into pieces at random: BPE-dropout, and sampling from a unigram model.

SentencePiece samples, too, but its generator mixes something of the process into the seed (0.2.3):
the same seed cuts otherwise in the next process, and a run could not be resumed. Here a cut is a
function of its seed alone. Words are cut one by one: no piece reaches over a space.
"""

import math
import random
import re
from collections.abc import Callable, Mapping

UNKNOWN = -100.0  # log-probability of a character without a piece: there is no other way

_words = re.compile("▁[^▁]*|[^▁]+").findall


def sample(
    text: str, scores: Mapping[str, float], *, kind: str, probability: float, seed: int
) -> list[str]:
    """The pieces of a text; a character that has none stands for itself.

    Args:
        text: as SentencePiece normalises it, with ▁ for a space.
        scores: of each piece: its rank for BPE, its log-probability for unigram.
        kind: "bpe" or "unigram".
        probability: that BPE leaves out a merge (Provilkov et al. 2020), or the power to which the
            unigram model's probabilities are taken (Kudo 2018).
        seed: decides, with the other arguments, how the text is cut.
    """
    draw = random.Random(seed).random  # whose numbers are the same in every Python
    cut = {"bpe": _merge, "unigram": _draw}[kind]
    return [piece for word in _words(text) for piece in cut(word, scores, probability, draw)]


def _merge(
    word: str, scores: Mapping[str, float], dropped: float, draw: Callable[[], float]
) -> list[str]:
    """Merges the best pair again and again, of those that are not dropped at this turn."""
    symbols = list(word)
    while True:
        best, at = -math.inf, -1
        for index in range(len(symbols) - 1):
            score = scores.get(symbols[index] + symbols[index + 1])
            if score is not None and score > best and draw() >= dropped:
                best, at = score, index
        if at < 0:
            return symbols
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def _draw(
    word: str, scores: Mapping[str, float], power: float, draw: Callable[[], float]
) -> list[str]:
    """Draws one of all cuts: probabilities summed forwards, pieces drawn backwards."""
    total = [0.0]  # log of the sum over all cuts of the first n characters
    arcs: list[list[tuple[int, float]]] = [[]]  # to n: from where, and the log-sum that way
    for end in range(1, len(word) + 1):
        ways = []
        for start in range(end):
            score = scores.get(word[start:end], UNKNOWN if end - start == 1 else None)
            if score is not None:
                ways.append((start, total[start] + power * score))
        top = max(way for _, way in ways)
        total.append(top + math.log(sum(math.exp(way - top) for _, way in ways)))
        arcs.append(ways)
    pieces, end = [], len(word)
    while end:
        left, ways = draw(), arcs[end]
        chosen = ways[-1][0]  # where rounding leaves something of `left`
        for start, way in ways:
            left -= math.exp(way - total[end])
            if left < 0:
                chosen = start
                break
        pieces.append(word[chosen:end])
        end = chosen
    return pieces[::-1]
