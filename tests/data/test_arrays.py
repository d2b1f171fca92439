import numpy as np

from transformer.data.arrays import ranges, starts


def test_runs_laid_end_to_end():
    lengths = np.array([3, 0, 2])
    np.testing.assert_array_equal(starts(lengths), [0, 3, 3])
    np.testing.assert_array_equal(ranges(np.array([7, 5, 0]), lengths), [7, 8, 9, 0, 1])


def test_no_runs():
    nothing = np.zeros(0, np.int64)
    assert ranges(nothing, nothing).shape == starts(nothing).shape == (0,)
