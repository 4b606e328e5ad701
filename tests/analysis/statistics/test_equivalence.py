"""Tests of equivalence, Welch's degrees of freedom and Holm's correction against published and scipy's values."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy import stats as scipy_stats

from analysis.data.paired import log_ratios
from analysis.statistics.small_samples import (
    Comparison,
    against_fixed,
    against_sample,
    equivalence,
    holm,
    largest,
    mean_interval,
    paired,
)

VALUES = [97.8, 97.95, 97.9, 98.02, 97.86]


def test_two_one_sided_tests_give_the_published_example() -> None:
    # TOSTER's TOSTone: m 0.54, mu 0.5, sd 1.2, n 100, bounds of 0.3 standard deviations:
    # t 3.33 (p .0006) and -2.67 (p .0045) with 99 degrees of freedom, 90 % interval -0.159 to 0.239
    comparison = Comparison(0.54 - 0.5, 1.2 / math.sqrt(100), 99)
    assert comparison.p_above(-0.36) == pytest.approx(0.0006, abs=5e-5)
    assert comparison.p_below(0.36) == pytest.approx(0.0045, abs=5e-5)
    assert equivalence(comparison, 0.36) == comparison.p_below(0.36)
    assert comparison.interval(confidence=0.90) == pytest.approx((-0.159, 0.239), abs=5e-4)


@pytest.mark.parametrize("bound", [-0.2, 0.0, 0.2])
def test_a_mean_against_a_fixed_number_is_the_one_sample_t_test(bound: float) -> None:
    comparison = against_fixed(VALUES, 97.69)
    for p, alternative in ((comparison.p_above(bound), "greater"), (comparison.p_below(bound), "less")):
        assert p == pytest.approx(scipy_stats.ttest_1samp(VALUES, 97.69 + bound, alternative=alternative).pvalue)
    mean, half = mean_interval(VALUES)
    assert comparison.interval() == pytest.approx((mean - half - 97.69, mean + half - 97.69))


@pytest.mark.parametrize("n", [3, 5])
def test_a_mean_against_a_printed_sample_is_welchs_test(n: int) -> None:
    comparison = against_sample(VALUES, 97.69, sd=0.14, n=n)
    welch = scipy_stats.ttest_ind_from_stats(
        statistics.fmean(VALUES), statistics.stdev(VALUES), 5, 97.69, 0.14, n, equal_var=False, alternative="greater"
    )
    assert comparison.p_above(0) == pytest.approx(welch.pvalue)
    assert comparison.df < 4 + n - 1


def test_the_sd_of_one_printed_run_is_taken_as_known() -> None:
    comparison = against_sample(VALUES, 97.69, sd=0.14, n=1)
    own = statistics.variance(VALUES) / 5
    assert comparison.error == pytest.approx(math.sqrt(own + 0.14**2))
    assert comparison.df == pytest.approx((own + 0.14**2) ** 2 / (own**2 / 4))
    assert against_sample([1.0, 1.0], 1.0, sd=1.0, n=1).df == math.inf
    assert against_sample([1.0, 1.0], 1.0, sd=1.0, n=1).p_above(-1.6448536) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="n is 0"):
        against_sample(VALUES, 97.69, sd=0.14, n=0)


def test_equivalence_is_where_the_90_percent_interval_lies_within_the_margin() -> None:
    comparison = against_fixed(VALUES, 97.69)
    low, high = comparison.interval(confidence=0.90)
    assert equivalence(comparison, high) == pytest.approx(0.05)
    assert equivalence(comparison, high + 0.01) < 0.05 < equivalence(comparison, high - 0.01)
    assert low > -high


def test_one_value_and_none_cannot_be_tested() -> None:
    for comparison in (against_fixed([97.0], 98.0), against_fixed([], 98.0), against_sample([1.0], 0, sd=1, n=3)):
        assert not comparison.testable
        assert math.isnan(equivalence(comparison, 0.2))
        assert all(math.isnan(limit) for limit in comparison.interval())


def test_equal_values_have_no_error_and_decide_by_the_margin_alone() -> None:
    assert equivalence(against_fixed([5.0, 5.0], 5.1), 0.2) == 0.0
    assert equivalence(against_fixed([5.0, 5.0], 5.3), 0.2) == 1.0
    assert against_fixed([5.0, 5.0], 5.25).interval() == (-0.25, -0.25)


def test_log_ratios_are_symmetric_about_the_printed_percentage() -> None:
    assert log_ratios([0.0125, 0.008, 0.01], 1.0) == pytest.approx([math.log(1.25), -math.log(1.25), 0.0])
    with pytest.raises(ValueError, match="percent is 0"):
        log_ratios([1.0], 0)


def test_one_seed_that_keeps_nothing_is_no_certainty() -> None:
    """It counts as a millionth of the weights: neither left out, nor enough for a verdict."""
    four = log_ratios([0.0248, 0.025, 0.0246, 0.0249, 0.0], 2.48)
    assert four[-1] == pytest.approx(math.log(1e-6 / 0.0248))
    assert 0.05 < against_fixed(four, 0.0).p_below(0.0) < 0.5


def test_what_one_part_cannot_test_is_not_shown_by_the_other() -> None:
    assert largest(0.01, 0.2) == 0.2
    assert math.isnan(largest(0.001, math.nan))
    assert math.isnan(largest(math.nan, 0.001))


def test_differences_are_paired_by_seed() -> None:
    assert paired({2: 5.0, 0: 3.0, 1: 9.0}, {0: 1.0, 2: 2.0, 3: 0.0}) == [2.0, 3.0]


def test_holm_gives_published_values() -> None:
    # the example of pingouin's holm, and one by hand: 4 x .005, 3 x .01, 2 x .03, then no less than before
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_nan = holm([0.01, math.nan, 0.04])
    assert [with_nan[0], with_nan[2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(with_nan[1])
