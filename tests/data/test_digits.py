"""Digits: pixels in the order of their patches, every picture in one split."""

import sys
from collections import Counter

import numpy as np
import pytest

from experiments import vit_digits
from transformer.config import from_dict
from transformer.data import Digits, digits
from transformer.errors import UserError

SPLITS = ("train", "dev", "test")


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    return pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)


def test_every_picture_is_in_one_split(data: tuple) -> None:
    corpus = Digits(2, 0, 200, 400)
    texts = {split: [pair[:2] for pair in corpus.pairs(split)] for split in SPLITS}
    assert [len(texts[split]) for split in SPLITS] == [1_197, 200, 400]
    assert len(set().union(*texts.values())) == 1_797
    named = Counter(name for pairs in texts.values() for _, name in pairs)
    assert named == Counter(digits.NAMES[digit] for digit in data[1])
    assert all(len(text.split()) == 64 and set(text) <= set("abcdefghijklmnopq ")
               for pairs in texts.values() for text, _ in pairs)  # fmt: skip
    # As in a pair of any size: no split has more of a digit than it should.
    assert min(Counter(name for _, name in texts["test"]).values()) > 20


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_a_patch_stands_together(data: tuple, side: int) -> None:
    pictures = {tuple(int(x) for x in picture): digit for picture, digit in zip(*data, strict=True)}
    for text, name in digits.pairs(slice(50), patch_side=side):
        levels = iter(ord(letter) - ord("a") for letter in text.split())
        picture = np.full((8, 8), -1)
        for top in range(0, 8, side):
            for left in range(0, 8, side):
                for row in range(top, top + side):
                    for column in range(left, left + side):
                        picture[row, column] = next(levels)
        assert digits.NAMES[pictures[tuple(picture.ravel().tolist())]] == name


def test_fingerprints(data: tuple) -> None:
    plain = Digits(2, 0, 200, 400)
    assert len({plain.fingerprint(split) for split in SPLITS}) == 3
    assert Digits(4, 0, 200, 400).fingerprint("dev") != plain.fingerprint("dev")
    assert Digits(2, 1, 200, 400).fingerprint("train") != plain.fingerprint("train")
    assert Digits(2, 1, 200, 400).fingerprint("dev") == plain.fingerprint("dev")
    with pytest.raises(UserError, match=r"dev_size and test_size are 1,900 of 1,797 pictures"):
        next(Digits(2, 0, 900, 1_000).pairs("dev"))


def test_training_pictures_are_moved(data: tuple) -> None:
    """Of a picture and its nine: the sixth is a column to the right of the fifth, itself."""
    moved = [pair.source for pair in Digits(1, 1, 200, 400).pairs("train")]
    plain = [pair.source for pair in Digits(1, 0, 200, 400).pairs("train")]
    assert len(moved) == 9 * len(plain) and moved[4::9] == plain
    before, after = (np.array(text.split()).reshape(8, 8) for text in moved[4:6])
    assert (after[:, 1:] == before[:, :-1]).all() and (after[:, 0] == "a").all()
    before, after = (np.array(moved[place].split()).reshape(8, 8) for place in (4, 7))
    assert (after[1:] == before[:-1]).all() and (after[0] == "a").all()


def test_without_scikit_learn_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._load.cache_clear()
    with pytest.raises(UserError, match=r"pip install -e '.\[digits\]'") as caught:
        next(Digits(2, 0, 200, 400).pairs("dev"))
    assert "\n" not in str(caught.value)
    digits._load.cache_clear()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_side": 3}, r"data.digits.patch_side is 3; take 1, 2, 4 or 8"),
        ({"patch_side": 4}, r"model.patch is 4 but data.digits.patch_side = 4 writes 16 pixels"),
        ({"shifts": 8}, r"data.digits.shifts is 8; take 0 to 7"),
        ({"dev_size": 0}, r"data.digits.dev_size is 0; it must be above 0"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = vit_digits.get_config("smoke").to_dict()
    tree["data"]["digits"] |= changes
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value)
