"""Statistics of small samples, as pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; the half-width of one value is nan.

    Raises ValueError for no values or a confidence outside (0, 1).
    """
    if not values:
        raise ValueError("no values")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must lie in (0, 1)")
    if len(values) == 1:
        return values[0], math.nan
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
