"""Two conditions compared seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.data.conditions import Condition
from analysis.statistics.small_samples import Comparison, against_fixed, paired

LEAST = 1e-6  # of the weights; a network that keeps none counts as one that keeps this


def log_ratios(fractions: Iterable[float], percent: float) -> list[float]:
    """ln of each remaining fraction over a percentage. A fraction of 0 counts as LEAST.

    Raises ValueError for a percentage that is not positive.
    """
    if percent <= 0:
        raise ValueError(f"percent is {percent}: it must be above 0")
    return [math.log(100 * max(fraction, LEAST) / percent) for fraction in fractions]


def against(ours: Condition, theirs: Condition) -> tuple[Comparison, Comparison]:
    """Test accuracy minus theirs in points, and ln(density / theirs), last epoch, paired by seed."""
    accuracies = (c.by_seed("test_accuracy") for c in (ours, theirs))
    return against_fixed(paired(*accuracies), 0.0), log_density_ratio(ours, theirs)


def log_density_ratio(ours: Condition, theirs: Condition) -> Comparison:
    """ln(density / theirs), last epoch, paired by seed."""
    logs = ({k: math.log(max(v, LEAST)) for k, v in c.by_seed("density").items()} for c in (ours, theirs))
    return against_fixed(paired(*logs), 0.0)
