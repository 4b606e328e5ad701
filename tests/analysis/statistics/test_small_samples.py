"""Statistics against published or hand-made values."""

from __future__ import annotations

import math

import pytest

from analysis.statistics.small_samples import mean_interval


def test_the_t_interval_of_five_values_uses_the_tabled_quantile() -> None:
    # deviation of 1 2 3 4 5 is sqrt(2.5); the 97.5 % point of t with 4 degrees of freedom is 2.776
    mean, half = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), rel=1e-3)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([2.0])[0] == 2.0
    assert math.isnan(mean_interval([2.0])[1])


def test_no_values_and_bad_confidence_are_named() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"confidence is 1.5"):
        mean_interval([1.0, 2.0], confidence=1.5)
