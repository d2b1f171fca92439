"""Recall over a distance: made-up pairs whose target stands in the source, far from where it ends.

    copy           c a f . . . .              c a f
    reverse        c a f . . . .              f a c
    associative    c F a B f A . . . . a      B

The distance of a pair is the number of its blanks: as many positions lie between the last item and
what asks for the items, which is the sentence's end (</s>), or the key behind the blanks. It is
what a state has to be carried over; an item j places before the last is j places further away (2 j
where items are a key and a value). An encoder that also reads from the right meets the items last,
and has no distance to bridge in `copy` and `reverse`: those are for encoders in one direction.

Each item is drawn from the same letters, values in capitals; the keys of a sentence differ. The
copy memory of Hochreiter and Schmidhuber (1997), with the one blank of Arjovsky et al. (2016); keys
and values as in Ba et al. (2016).
"""

import hashlib
import itertools
import math
import string

SPLITS = ("train", "dev", "test")
LETTERS = string.ascii_lowercase  # one symbol, one token: see experiments/recall.py
BLANK = "."


def pair(
    task: str, split: str, index: int, *, item_count: int, symbols: int, distances: tuple[int, ...]
) -> tuple[str, str]:
    """Source and target number `index` of a split, a function of these arguments alone.

    Distances take turns; one that is named twice has two. Leave the blanks out, and still no two
    pairs are alike, be it in one split or in two. `copy` and `reverse` have the same sources.

    Args:
        task: "copy", "reverse" or "associative".
        split: "train", "dev" or "test".
        index: from 0, below `count_pairs(task, item_count, symbols)`.
        item_count: symbols to remember, or pairs of a key and a value.
        symbols: different letters, at most 26; for "associative", as many as `item_count` at least.
        distances: in blanks.

    Raises ValueError where there is no such pair.
    """
    count = count_pairs(task, item_count, symbols)
    if not 0 <= index < count:
        raise ValueError(f"{split} has {count:,} pairs and no pair {index:,}")
    choices, drawn = _choices(task, item_count, symbols), []
    # Every sequence of symbols has a number; a split has each third one, mixed.
    number = _mixed(len(SPLITS) * index + SPLITS.index(split), math.prod(choices))
    for ways in choices:
        number, choice = divmod(number, ways)
        drawn.append(choice)
    blanks = [BLANK] * distances[index % len(distances)]
    if task == "associative":
        left = list(LETTERS[:symbols])
        keys = [left.pop(choice) for choice in drawn[:item_count]]
        values = [LETTERS[choice].upper() for choice in drawn[item_count:-1]]
        asked = drawn[-1]
        told = itertools.chain.from_iterable(zip(keys, values, strict=True))
        return " ".join([*told, *blanks, keys[asked]]), values[asked]
    told = [LETTERS[choice] for choice in drawn]
    target = told[::-1] if task == "reverse" else told
    return " ".join([*told, *blanks]), " ".join(target)


def count_pairs(task: str, item_count: int, symbols: int) -> int:
    """How many pairs each split has, whatever the distances."""
    return math.prod(_choices(task, item_count, symbols)) // len(SPLITS)


def distance(source: str) -> int:
    """The distance, in blanks, of a pair with this source."""
    return source.split().count(BLANK)


def _choices(task: str, item_count: int, symbols: int) -> list[int]:
    """How many ways there are to draw each symbol: keys, then values, then the key asked for."""
    if task == "associative":
        return [*range(symbols, symbols - item_count, -1), *[symbols] * item_count, item_count]
    return [symbols] * item_count


def _mixed(number: int, count: int) -> int:
    """A permutation of range(count) without visible order: a Feistel network in base √count.

    What falls outside of the range goes round again (Black and Rogaway 2002, "cycle walking").
    """
    base = math.isqrt(count - 1) + 1
    size = base.bit_length() // 8 + 8  # 8 bytes more than needed: the modulus favours no number
    while True:
        high, low = divmod(number, base)
        for turn in range(4):
            digest = hashlib.shake_128(f"recall {turn} {low:x}".encode()).digest(size)
            high, low = low, (high + int.from_bytes(digest, "big")) % base
        number = high * base + low
        if number < count:
            return number
