"""How numbers are written in tables: means, differences, ratios and intervals."""

from __future__ import annotations

import math
import statistics

from analysis.data.conditions import Summary
from analysis.statistics.small_samples import Comparison, half_width

WIDE = "A percentage whose standard deviation exceeds a third of its mean is shown as median [minimum, maximum]."
CUT = "Cut: the t interval reaches beyond 0 or 100 %, which the number cannot; its limit is shown as 0 or 100."
LEAST = 0.01  # percent, where a logarithmic axis shows 0
WIDE_BARS = "median, minimum and maximum where it exceeds a third of the mean"  # in a figure


def mean_and_sd(value: Summary) -> str:
    """`97.90 ± 0.07`, of one value `97.90`, of none `not recorded`."""
    if not value.n:
        return "not recorded"
    return f"{value.mean:.2f} ± {value.sd:.2f}" if value.n > 1 else f"{value.mean:.2f}"


def is_wide(value: Summary) -> bool:
    """Whether the standard deviation exceeds a third of the mean.

    The mean and its interval then say little of a number that cannot be below 0, such as a
    percentage: with a standard deviation above the mean the interval holds negative numbers.
    """
    return value.n > 1 and value.sd > abs(value.mean) / 3


def centre_and_ends(value: Summary) -> tuple[float, float, float]:
    """Where to draw a percentage, and where its error bar begins and ends.

    Mean, mean - sd and mean + sd; of a wide one median, minimum and maximum. Never below 0 for
    values that are not.
    """
    if is_wide(value):
        return statistics.median(value.values), min(value.values), max(value.values)
    sd = 0.0 if math.isnan(value.sd) else value.sd
    return value.mean, value.mean - sd, value.mean + sd


def on_log_axis(value: Summary) -> tuple[float, float, float]:
    """`centre_and_ends` of a percentage, at least LEAST, so that a logarithmic axis shows 0."""
    centre, low, high = (max(LEAST, end) for end in centre_and_ends(value))
    return centre, low, high


def percentage(value: Summary) -> str:
    """`97.90 ± 0.07`; of a wide one median, minimum and maximum: `3.90 [2.52, 74.45]`."""
    if not is_wide(value):
        return mean_and_sd(value)
    centre, low, high = centre_and_ends(value)
    return f"{centre:.2f}{limits(low, high)}"


def with_seeds(value: Summary) -> str:
    """A percentage and its seeds: `97.90 ± 0.07 (n=5)`, `(n=2/3)` where some miss, or `not run`."""
    return f"{percentage(value)} ({value.seeds})" if value.n else "not run"


def percentage_and_interval(value: Summary) -> str:
    """`97.90 ± 0.07 (n=5) [97.83, 97.97]`; a wide one has no interval: `3.90 [2.52, 74.45] (n=5)`."""
    return f"{with_seeds(value)}{percentage_limits(value)}"


def percentage_limits(value: Summary) -> str:
    """The 95 % interval of a share, within 0 and 100: ` [97.83, 97.97]`, ` [92.28, 100.00 cut]`.

    `CUT` says what the word cut means. Empty where there is no interval.
    """
    low, high = percentage_interval(value)
    text = limits(max(low, 0.0), min(high, 100.0)) if low == low else ""
    return f"{text[:-1]} cut]" if low < 0 or high > 100 else text


def percent(fraction: float) -> str:
    """A share as a percentage of three digits: `5`, `2.48`, `5.25`."""
    return f"{100 * fraction:.3g}"


def printed_number(mean: float | None, sd: float | None, *, signed: bool = False, exact: bool = False) -> str:
    """A number with its ±, if it has one; empty for None.

    exact: without a ±, write as many digits as it has.
    """
    if mean is None:
        return ""
    if sd is None or math.isnan(sd):
        return f"{mean:g}" if exact else f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return f"{mean:+.2f} ± {sd:.2f}" if signed else f"{mean:.2f} ± {sd:.2f}"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def p_equals(p: float) -> str:
    """`p = 0.033`, or `p < 0.001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def points(comparison: Comparison, *, confidence: float = 0.95) -> str:
    """A difference in points with its interval: `+0.34 [+0.25, +0.43]`."""
    if math.isnan(comparison.difference):
        return ""
    return f"{comparison.difference:+.2f}{limits(*comparison.interval(confidence=confidence), signed=True)}"


def factor(comparison: Comparison, *, confidence: float = 0.95) -> str:
    """The logarithm of a ratio, as the ratio with its interval: `×5.00 [3.61, 6.93]`."""
    if math.isnan(comparison.difference):
        return ""
    low, high = (math.exp(limit) for limit in comparison.interval(confidence=confidence))
    return f"×{math.exp(comparison.difference):.2f}{limits(low, high)}"


def limits(low: float, high: float, *, signed: bool = False) -> str:
    """An interval to stand behind its number: ` [97.83, 97.97]`; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f" [{low:+.2f}, {high:+.2f}]" if signed else f" [{low:.2f}, {high:.2f}]"


def percentage_interval(value: Summary) -> tuple[float, float]:
    """The 95 % t interval of the mean of a percentage; nan for fewer than two seeds and a wide one."""
    return (math.nan, math.nan) if is_wide(value) else t_interval(value)


def t_interval(value: Summary) -> tuple[float, float]:
    """The 95 % t interval of a mean; nan for fewer than two seeds."""
    half = half_width(value.sd, value.n)
    return value.mean - half, value.mean + half
