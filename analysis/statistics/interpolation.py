"""Where a curve through measured points passes a wanted value, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from analysis.statistics.resampling import DRAWS, SEED, Floats, percentile_interval


def crossings(alphas: Sequence[float], densities: Sequence[float], wanted: float) -> list[float]:
    """The alphas at which the line through (log alpha, log density) passes `wanted`, ascending.

    alphas ascend; all numbers are above 0. No extrapolation: empty where the points do not bracket
    it.
    """
    x, y = np.log(np.asarray(alphas, dtype=float)), np.log(np.asarray(densities, dtype=float))
    goal, found = float(np.log(wanted)), []
    for i in range(len(x) - 1):
        if (y[i] - goal) * (y[i + 1] - goal) <= 0 and y[i] != y[i + 1]:
            share = (goal - y[i]) / (y[i + 1] - y[i])
            found.append(float(np.exp(x[i] + share * (x[i + 1] - x[i]))))
    return list(dict.fromkeys(found))


def at(alphas: Sequence[float], values: Sequence[float], alpha: float) -> float:
    """The line through (log alpha, value) at an alpha between the ends."""
    return float(np.interp(np.log(alpha), np.log(np.asarray(alphas, dtype=float)), np.asarray(values, dtype=float)))


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(np.asarray(values, dtype=float)))))


def crossing_interval(
    alphas: Sequence[float],
    runs: Sequence[Sequence[float]],
    wanted: float,
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = SEED,
) -> tuple[float, float, float]:
    """(low, high, share) of the first crossing where each alpha's runs are resampled.

    runs: densities of each alpha's seeds; their geometric mean is the point of the curve. low,
    high: percentiles. share: of the draws that cross at all; the interval is over those. (nan, nan,
    nan) where more draws than either tail holds cross beside an alpha with a single run, which
    cannot vary.
    """
    generator = np.random.default_rng(seed)
    logs = [np.log(np.asarray(densities, dtype=float)) for densities in runs]
    drawn = np.exp(
        np.stack([values[generator.integers(0, len(values), (draws, len(values)))].mean(axis=1) for values in logs])
    )
    firsts, segments = _first_crossings(np.asarray(alphas, dtype=float), drawn, wanted)
    single = np.array([min(map(len, ends)) < 2 for ends in pairwise(runs)])
    if single[segments[~np.isnan(firsts)]].sum() > (1 - confidence) / 2 * draws:
        return float("nan"), float("nan"), float("nan")
    return *percentile_interval(firsts, confidence=confidence), float((~np.isnan(firsts)).mean())


def _first_crossings(alphas: Floats, curves: Floats, wanted: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The first of `crossings` of each curve and its segment, [alphas, draws] -> [draws]; nan for none."""
    x, above = np.log(alphas)[:, None], np.log(curves) - np.log(wanted)
    left, right = above[:-1], above[1:]
    crosses = (left * right <= 0) & (left != right)
    share = left / np.where(crosses, left - right, 1.0)
    places = np.exp(np.where(crosses, x[:-1] + share * (x[1:] - x[:-1]), 0.0))
    segments = crosses.argmax(axis=0)
    first = np.take_along_axis(places, segments[None], axis=0)[0]
    return np.asarray(np.where(crosses.any(axis=0), first, np.nan)), segments
