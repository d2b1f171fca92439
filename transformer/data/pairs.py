"""A sentence pair, and what can be wrong with one."""

import enum
from typing import NamedTuple


class Problem(enum.IntFlag):
    """Kinds of dirt, as bits of one byte: a pair may have several.

    The first three are seen in the text itself, DUPLICATES when a store is built, the others only
    when it is known what training is to be.
    """

    NOT_UTF8 = 1  # bytes that are not UTF-8; each is read as U+FFFD
    CONTROL_CHARACTERS = 2  # Unicode's category Cc, but for the tab
    EMPTY = 4  # a side without any text
    DUPLICATES = 8  # a pair that has come before
    HELD_OUT = 16  # a training pair that stands in the development or test set
    TOO_LONG = 32  # more tokens than data.max_length
    RATIO = 64  # one side longer than data.max_ratio times the other


IN_TEXT = Problem.NOT_UTF8 | Problem.CONTROL_CHARACTERS | Problem.EMPTY
IN_CORPUS = IN_TEXT | Problem.DUPLICATES
NAMES = {  # for sentences: "12 training pairs (3 not UTF-8, 9 empty)"
    Problem.NOT_UTF8: "not UTF-8",
    Problem.CONTROL_CHARACTERS: "with control characters",
    Problem.EMPTY: "with an empty side",
    Problem.DUPLICATES: "duplicates",
    Problem.HELD_OUT: "in the dev or test set",
    Problem.TOO_LONG: "too long",
    Problem.RATIO: "out of ratio",
}


class Pair(NamedTuple):
    """A source sentence and its translation."""

    source: str
    target: str
    problems: Problem = Problem(0)
    part: int = 0  # of a mixture of corpora
    tags: str = ""  # parts of speech of the source's words, where the target is their tree
