"""Intervals against SciPy's own tests."""

import pytest
from scipy import stats

from transformer.reports.statistics import Estimate, difference, mean

ONE, OTHER = [91.0, 94.5, 89.25], [70.0, 88.0, 41.5, 66.0]


def test_a_mean_has_students_interval() -> None:
    found = mean(ONE)
    interval = stats.ttest_1samp(ONE, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(sum(ONE) / 3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_difference_has_welchs_interval() -> None:
    found = difference(ONE, OTHER)
    test = stats.ttest_ind(ONE, OTHER, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.value == pytest.approx(sum(ONE) / 3 - sum(OTHER) / 4)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    turned = difference(OTHER, ONE)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_values_that_are_all_the_same_have_no_width() -> None:
    assert difference([5.0, 5.0], [3.0, 3.0]) == Estimate(2.0, 2.0, 2.0)
    assert mean([5.0, 5.0]).text() == "5.0"


def test_a_sign_needs_the_whole_interval() -> None:
    assert Estimate(1.0, 0.5, 1.5).sign == 1
    assert Estimate(-1.0, -1.5, -0.5).sign == -1
    assert Estimate(1.0, -0.5, 2.5).sign == 0
    assert Estimate(1.0, -0.5, 2.5).text(2, signed=True) == "+1.00 [-0.50, +2.50]"
