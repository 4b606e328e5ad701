"""Two conditions compared seed by seed."""

from __future__ import annotations

import math

from analysis.data.conditions import Condition
from analysis.statistics.small_samples import Comparison, against_fixed, paired


def against(ours: Condition, theirs: Condition) -> tuple[Comparison, Comparison]:
    """Test accuracy minus theirs in points, and ln(density / theirs), last epoch, paired by seed."""
    accuracies = (c.by_seed("test_accuracy") for c in (ours, theirs))
    return against_fixed(paired(*accuracies), 0.0), log_density_ratio(ours, theirs)


def log_density_ratio(ours: Condition, theirs: Condition) -> Comparison:
    """ln(density / theirs), last epoch, paired by seed."""
    logs = ({k: math.log(v) for k, v in c.by_seed("density").items() if v > 0} for c in (ours, theirs))
    return against_fixed(paired(*logs), 0.0)
