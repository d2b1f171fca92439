"""Pictures as text: scikit-learn's handwritten digits, a letter a pixel, patch by patch.

1,797 pictures of 8 x 8 pixels in 17 levels (Alpaydin and Kaynak 1998), which come with the package:
there is no download. `a` is paper and `q` is ink. A patch's pixels stand together, row by row, so
that `model.patch` of them are one position. The target is the digit's name.
"""

import functools
import hashlib
import itertools
import string
from collections.abc import Iterator

import numpy as np

from transformer.errors import UserError

SIDE, LEVELS = 8, 17
LETTERS = np.array(list(string.ascii_lowercase[:LEVELS]))
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def pairs(pictures: slice, *, patch_side: int, shifts: int = 0) -> Iterator[tuple[str, str]]:
    """Pictures with their names, in an order that a hash of the pixels decides.

    Args:
        pictures: which of them.
        patch_side: pixels; 1, 2, 4 or 8.
        shifts: each picture also comes moved by up to so many pixels, down or up and to the sides:
            (2 · shifts + 1)² times. What is moved out is lost, and paper moves in.

    Raises:
        UserError: scikit-learn is not installed.
    """
    levels, digits = _load()
    rows = np.arange(SIDE * SIDE).reshape(SIDE // patch_side, patch_side, -1, patch_side)
    order = rows.swapaxes(1, 2).ravel()
    by = range(-shifts, shifts + 1)
    for picture, digit in zip(levels[pictures], digits[pictures], strict=True):
        wide = np.pad(picture.reshape(SIDE, SIDE), shifts)
        for down, right in itertools.product(by, by):
            top, left = shifts - down, shifts - right
            moved = wide[top : top + SIDE, left : left + SIDE].ravel()
            yield " ".join(LETTERS[moved[order]]), NAMES[digit]


def count() -> int:
    """How many pictures there are."""
    return len(_load()[1])


@functools.cache
def _load() -> tuple[np.ndarray, list[int]]:
    """Levels [pictures, 64] and digits, in the order of the pictures' hashes."""
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"data.source=digits needs scikit-learn, whose pictures they are ({error}): "
            "pip install -e '.[digits]'"
        ) from error
    data, target = load_digits(return_X_y=True)
    pictures = np.asarray(data).astype(np.uint8)
    keys = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return pictures[order], [int(target[i]) for i in order]
