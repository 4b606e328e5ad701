"""Intervals by resampling, and the probability that one method improves on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 0

Floats = NDArray[np.float64]


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[Floats], Floats] = lambda draws: draws.mean(axis=1),
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile interval of a statistic of one sample; (nan, nan) for fewer than two values.

    statistic: [draws, n] -> [draws]. The interval is never wider than the range of the values, and
    it is too narrow for small n: Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    sample = np.asarray(values, dtype=float)
    chosen = np.random.default_rng(seed).integers(0, len(sample), size=(draws, len(sample)))
    return percentile_interval(statistic(sample[chosen]), confidence=confidence)


def percentile_interval(replicates: Sequence[float] | Floats, *, confidence: float = 0.95) -> tuple[float, float]:
    """The central part of the replicates that are numbers; (nan, nan) where none is."""
    found = np.asarray(replicates, dtype=float)
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """P(ours > theirs) over all pairs of runs, ties counted half: Mann-Whitney's U over n m.

    Agarwal et al., Deep RL at the Edge of the Statistical Precipice, NeurIPS 2021, section 4.3.
    Raises ValueError for an empty side.
    """
    if not len(ours) or not len(theirs):
        raise ValueError("no values on one side")
    gaps = np.asarray(ours, dtype=float)[:, None] - np.asarray(theirs, dtype=float)[None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def improvement_interval(
    ours: Sequence[float], theirs: Sequence[float], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """Percentile interval of the probability of improvement, each side resampled separately."""
    if len(ours) < 2 or len(theirs) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    sides = [np.asarray(side, dtype=float) for side in (ours, theirs)]
    first, second = (side[generator.integers(0, len(side), size=(draws, len(side)))] for side in sides)
    gaps = first[:, :, None] - second[:, None, :]
    return percentile_interval(((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=(1, 2)), confidence=confidence)
