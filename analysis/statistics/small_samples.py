"""Statistics of small samples: t intervals, comparisons, Holm's correction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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
    return statistics.fmean(values), half_width(statistics.stdev(values), len(values), confidence=confidence)


def half_width(sd: float, n: int, *, confidence: float = 0.95) -> float:
    """Half-width of the t interval of a mean of n values with this deviation; nan for n < 2."""
    return _quantile((1 + confidence) / 2, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """A difference, its standard error and degrees of freedom.

    The last two are nan where nothing can be tested (n < 2). df is math.inf where the normal
    distribution replaces Student's t.
    """

    difference: float
    error: float
    df: float

    @property
    def testable(self) -> bool:
        return not math.isnan(self.error) and not math.isnan(self.difference)

    def p_above(self, bound: float) -> float:
        """One-sided p of "the difference is above the bound"; nan where it cannot be tested."""
        return self._tail(self.difference - bound)

    def p_below(self, bound: float) -> float:
        """One-sided p of "the difference is below the bound"."""
        return self._tail(bound - self.difference)

    def interval(self, *, confidence: float = 0.95) -> tuple[float, float]:
        """Limits of the t interval; nan where nothing can be tested."""
        if not self.testable:
            return math.nan, math.nan
        if self.error == 0:
            return self.difference, self.difference
        half = self.error * _quantile((1 + confidence) / 2, self.df)
        return self.difference - half, self.difference + half

    def _tail(self, distance: float) -> float:
        if not self.testable:
            return math.nan
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        from scipy.special import ndtr, stdtr

        ratio = -distance / self.error
        return float(ndtr(ratio) if math.isinf(self.df) else stdtr(self.df, ratio))


def against_fixed(values: Sequence[float], reference: float) -> Comparison:
    """Mean of the values minus a number taken as known: df = n - 1."""
    if not values:
        return Comparison(math.nan, math.nan, math.nan)
    if len(values) == 1:
        return Comparison(values[0] - reference, math.nan, math.nan)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Comparison(statistics.fmean(values) - reference, error, len(values) - 1)


def against_sample(values: Sequence[float], mean: float, *, sd: float, n: int) -> Comparison:
    """Mean of the values minus the mean of another sample of which sd and n are known, by Welch.

    With n = 1 the sd cannot be that of a sample: it is then taken as known, and only our values
    cost degrees of freedom. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: it must be at least 1")
    ours = against_fixed(values, mean)
    if not ours.testable:
        return ours
    own, theirs = ours.error**2, sd**2 / n
    if own + theirs == 0:
        return ours
    loss = own**2 / ours.df + (theirs**2 / (n - 1) if n > 1 else 0.0)
    return Comparison(ours.difference, math.sqrt(own + theirs), (own + theirs) ** 2 / loss if loss else math.inf)


def equivalence(comparison: Comparison, margin: float) -> float:
    """p of two one-sided tests: the difference lies within ±margin.

    It is at most 0.05 exactly where the 90 % interval lies within.
    """
    return largest(comparison.p_above(-margin), comparison.p_below(margin))


def largest(*p_values: float) -> float:
    """The p of "all of these hold"; nan where one of them cannot be tested."""
    return math.nan if any(math.isnan(p) for p in p_values) else max(p_values)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours minus theirs for the keys (seeds) that both have, in their order."""
    return [ours[key] - theirs[key] for key in sorted(ours.keys() & theirs.keys())]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; nan stays nan and is not counted."""
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _quantile(probability: float, df: float) -> float:
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))
