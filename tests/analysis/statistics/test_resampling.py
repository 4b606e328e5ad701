"""Statistics against published values, hand-worked ones and scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis.statistics.interpolation import at, crossing_interval, crossings, geometric_mean
from analysis.statistics.rankings import (
    chance,
    interval_over_raters,
    interval_over_runs,
    kendalls_w,
    p_value,
    pairwise,
)
from analysis.statistics.resampling import bootstrap_interval, improvement_interval, probability_of_improvement

# Siegel, Nonparametric Statistics for the Behavioral Sciences, 1956, chapter 9: three executives rank six
# applicants (W = .16), and three judges with ties (W = .828)
APPLICANTS = [[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]]
TIED = [
    [1, 4.5, 2, 4.5, 3, 7.5, 6, 9, 7.5, 10],
    [2.5, 1, 2.5, 4.5, 4.5, 8, 9, 6.5, 10, 6.5],
    [2, 1, 4.5, 4.5, 4.5, 4.5, 8, 8, 8, 10],
]


def test_kendalls_w_is_the_textbooks_without_and_with_ties() -> None:
    assert kendalls_w(APPLICANTS) == pytest.approx(0.16, abs=0.005)
    assert kendalls_w(TIED) == pytest.approx(0.828, abs=0.0005)


def test_kendalls_w_is_one_for_equal_rankings_and_undefined_for_one_or_for_ties_alone() -> None:
    assert kendalls_w([[0.1, 0.5, 0.3], [1, 9, 2], [-3, 0, -1]]) == 1
    assert math.isnan(kendalls_w([[1, 2, 3]]))
    assert math.isnan(kendalls_w([[1, 1, 1], [2, 2, 2]]))


def test_kendalls_w_follows_from_the_mean_of_spearmans_rho() -> None:
    rho = np.mean([pair[2] for pair in pairwise(APPLICANTS)])
    assert kendalls_w(APPLICANTS) == pytest.approx((1 + 2 * rho) / 3)


def test_pairwise_correlations_are_scipys() -> None:
    for i, j, rho, tau in pairwise(TIED):
        assert rho == pytest.approx(scipy_stats.spearmanr(TIED[i], TIED[j]).statistic)
        assert tau == pytest.approx(scipy_stats.kendalltau(TIED[i], TIED[j]).statistic)


def test_shuffled_rankings_agree_by_one_in_m_on_average() -> None:
    found = chance(APPLICANTS)
    assert found.mean() == pytest.approx(1 / 3, abs=0.01)
    assert p_value(kendalls_w(APPLICANTS), found) > 0.5
    assert p_value(1.0, found) < 0.01


def test_intervals_of_w_hold_it_and_close_where_all_agree() -> None:
    agreed = np.array([[0.1, 0.2, 0.9, 0.5]] * 3) + np.arange(3)[:, None] / 100
    assert interval_over_raters(agreed) == (1.0, 1.0)
    assert interval_over_runs([agreed, 2 * agreed]) == (1.0, 1.0)
    low, high = interval_over_raters(TIED)
    assert low < 0.828 < high <= 1
    assert all(math.isnan(end) for end in interval_over_runs([agreed[:1], agreed[:1]]))


def test_the_bootstrap_is_scipys_percentile_interval() -> None:
    values = [97.1, 97.4, 96.9, 97.8, 97.3, 97.0, 97.6, 97.2]
    wanted = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    low, high = bootstrap_interval(values, draws=20_000)
    assert (low, high) == pytest.approx(tuple(wanted.confidence_interval), abs=0.01)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert all(math.isnan(end) for end in bootstrap_interval([1.0]))


def test_probability_of_improvement_counts_pairs_and_half_of_ties() -> None:
    """3 > 1, 3 > 2, 3 = 3; 1 = 1, 1 < 2, 1 < 3: (2.5 + 0.5) / 6."""
    assert probability_of_improvement([3, 1], [1, 2, 3]) == 0.5
    u = scipy_stats.mannwhitneyu([3, 1, 4], [1, 2, 3]).statistic
    assert probability_of_improvement([3, 1, 4], [1, 2, 3]) == pytest.approx(u / 9)
    assert improvement_interval([5, 6], [1, 2, 3]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        probability_of_improvement([], [1])


def test_a_crossing_lies_on_the_power_law_and_nothing_is_extrapolated() -> None:
    alphas = [1e-4, 3e-4, 1e-3]
    densities = [2e-4 / alpha for alpha in alphas]
    assert crossings(alphas, densities, 0.5) == pytest.approx([4e-4])
    assert crossings(alphas, densities, 0.1) == []
    assert crossings(alphas, [4, 1, 4], 2) == pytest.approx([math.sqrt(3) * 1e-4, math.sqrt(3e-4 * 1e-3)])
    assert at([1e-4, 1e-2], [10, 20], 1e-3) == pytest.approx(15)
    assert geometric_mean([1, 100]) == pytest.approx(10)


def test_a_crossings_interval_comes_from_the_seeds() -> None:
    alphas, runs = [1e-4, 1e-3], [[2.0, 2.2], [0.2, 0.18]]
    low, high, share = crossing_interval(alphas, runs, 0.63)
    ends = [crossings(alphas, [first, second], 0.63)[0] for first, second in ((2.0, 0.18), (2.2, 0.2))]
    assert (low, high) == pytest.approx(ends)
    assert share == 1
    assert crossing_interval(alphas, [[2.0, 0.5], [0.2, 0.2]], 0.7)[2] == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    ("runs", "has_interval"),
    [
        ([[4.0], [2.0, 2.2], [0.2, 0.18], [0.1]], True),
        ([[4.0, 4.4], [2.0], [0.2, 0.18], [0.1, 0.11]], False),
        ([[4.0, 4.4], [2.0, 2.2], [0.2], [0.1, 0.11]], False),
        ([[4.0, 4.4], [0.62, 0.5], [0.2], [0.1, 0.11]], True),
        ([[4.0, 4.4], [0.7, 0.5], [0.2], [0.1, 0.11]], False),
    ],
    ids=["far from the crossing", "left of it", "right of it", "no draw crosses beside it", "some draws do"],
)
def test_a_single_run_has_no_part_in_an_interval(runs: list[list[float]], has_interval: bool) -> None:
    """It cannot vary, so an interval between it and its neighbour would be too short."""
    found = crossing_interval([1e-4, 3e-4, 1e-3, 3e-3], runs, 0.63)
    assert [math.isnan(value) for value in found] == [not has_interval] * 3
