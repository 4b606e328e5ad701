"""How often the rule of docs/verdicts.md can show what is true, by simulation."""

from __future__ import annotations

import functools
import math

import numpy as np

from analysis.statistics.resampling import SEED, Floats

DRAWS = 20_000


def power_of_equivalence(
    sd: float, margin: float, n: int, *, level: float, draws: int = DRAWS, seed: int = SEED
) -> Floats:
    """Of draws of n normal values around 0, those that two one-sided t tests place within ±margin.

    sd: of the values. level: of each one-sided test. Returns [draws], 1 where both reject. The true
    difference is 0, the middle of the margin: the largest power there is.
    """
    if n < 2:
        return np.zeros(draws)
    from scipy.special import stdtrit

    values = np.random.default_rng(seed).normal(0.0, sd, size=(draws, n))
    half = stdtrit(n - 1, 1 - level) * values.std(axis=1, ddof=1) / math.sqrt(n)
    return np.asarray(np.abs(values.mean(axis=1)) + half <= margin, dtype=float)


@functools.cache
def power_to_reproduce(
    sds: tuple[float, float], margins: tuple[float, float], n: int, *, level: float, draws: int = DRAWS
) -> float:
    """The chance that n seeds show a number as reproduced where it is: both its tests reject.

    sds, margins: of accuracy and of the logarithm of the density, taken as independent and normal.
    """
    accuracy, density = (
        power_of_equivalence(sd, margin, n, level=level, draws=draws, seed=SEED + i)
        for i, (sd, margin) in enumerate(zip(sds, margins, strict=True))
    )
    return float((accuracy * density).mean())


def seeds_needed(
    sds: tuple[float, float], margins: tuple[float, float], *, power: float, level: float, most: int = 100
) -> int | None:
    """The fewest seeds with this power; None if `most` do not have it."""
    reach = (n for n in range(2, most + 1) if power_to_reproduce(sds, margins, n, level=level) >= power)
    return next(reach, None)
