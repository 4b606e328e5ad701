"""Finds the value of a hyperparameter at which a training ends with a chosen density.

It is for methods such as DST, whose density is a result of the training and follows from one
hyperparameter. The search reads only densities, so it needs no held-out data. Each value that it
tries costs a training, so it tries few.

The next value depends only on the densities known so far. Between a value that keeps too many
weights and its neighbour that keeps too few, it is interpolated linearly: log odds of the density
over log value, no nearer to either end than a fifth of the interval. Outside of the known values it
is extrapolated, by at most a factor of 10. So an interrupted search continues where it stopped when
it is given the densities that it had found. Values are rounded to few digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# Steps and widths are differences of log values.
LARGEST_STEP = math.log(10)  # the limits of a step beyond the known values
SMALLEST_STEP = math.log(1.2)
BLIND_STEP = math.log(3)  # the step beyond a value that has no density
LEAST_SHARE = 0.2  # a new value keeps this share of the interval from either end
RESOLUTION = math.log(1.01)  # an interval this narrow is not divided
PLATEAU = math.log(2)  # a density that stays over this width may have reached its floor,
FALLEN = 0.1  # but only if its log odds fell by this much before


@dataclass(frozen=True, kw_only=True)
class DensityKnob:
    """The hyperparameter that moves the density of a method that has no hyperparameter `density`.

    name: of the hyperparameter, a positive float. low, high: the smallest and the largest value that
    a search may try. rising: whether a larger value keeps more weights.
    """

    name: str
    low: float
    high: float
    rising: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"the range of {self.name} is {self.low} to {self.high}: it must be positive and grow")


@dataclass(frozen=True, kw_only=True)
class DensityMatch:
    """What a search found.

    value, density: the value found and its density; None where none was found. reason: why none was
    found; empty where one was. between: two neighbouring values; between them the density jumps over
    the wanted one, stops changing, or was still being searched. None where there are no such values.
    densities: every known value in ascending order, with its density or None. tried: the values that
    this search tried, in order.
    """

    value: float | None
    density: float | None
    reason: str = ""
    between: tuple[float, float] | None = None
    densities: Mapping[float, float | None] = field(default_factory=dict)
    tried: tuple[float, ...] = ()


def match_density(
    density_of: Callable[[float], float | None],
    *,
    density: float,
    low: float,
    high: float,
    rising: bool = False,
    start: float | None = None,
    tolerance: float = 0.05,
    probes: int = 8,
    known: Mapping[float, float | None] | None = None,
) -> DensityMatch:
    """Search between `low` and `high` for the value at which density_of(value) is the density.

    density_of: trains with a value and returns the density in [0, 1], for example the mean over
    seeds. It returns None where the training diverges, which counts as too sparse. rising: whether a
    larger value keeps more weights. start: the first value, where none is known; by default the
    geometric mean of `low` and `high`. tolerance: relative to the density. probes: how many values
    to try at most; 0 only reads `known`. known: densities that were found earlier, by value. Raises
    ValueError for arguments out of range, and for a density outside [0, 1].
    """
    _check(density=density, low=low, high=high, tolerance=tolerance, probes=probes)
    first = math.sqrt(low * high) if start is None else min(max(start, low), high)
    densities = {value: _checked(value, found) for value, found in (known or {}).items() if low <= value <= high}
    tried: list[float] = []
    while True:
        points = sorted(_Point(value, _odds(d) - _odds(density)) for value, d in densities.items())
        points, ends = (points[::-1], (high, low)) if rising else (points, (low, high))
        errors = {value: abs(d / density - 1) for value, d in densities.items() if d is not None}
        nearest = min(errors, key=lambda value: errors[value], default=None)
        if nearest is not None and errors[nearest] <= tolerance:
            return _match(nearest, None, densities, tried)
        step = _next(points, ends, tolerance) if points else first
        if len(tried) == probes and not isinstance(step, _End):
            step = _End(_stopped(probes), _bracket(points))
        if isinstance(step, _End):
            return _match(None, step, densities, tried)
        densities[step] = _checked(step, density_of(step))
        tried.append(step)


@dataclass(frozen=True, order=True)
class _Point:
    """A known value. Points are ordered from dense to sparse.

    excess: log odds of its density minus those of the wanted one; -inf for no density and for 0.
    """

    value: float
    excess: float


def _odds(density: float | None) -> float:
    """log(d / (1 - d)): about log d where d is small, and straight where curves bend towards 1."""
    return math.log(density / max(1 - density, 1e-3)) if density else -math.inf


@dataclass(frozen=True)
class _End:
    """Why the search ends without a value, and between which points."""

    reason: str
    between: tuple[_Point, _Point] | None = None


def _stopped(probes: int) -> str:
    """Why a search without a result ended at its limit."""
    if probes == 0:
        return "none of the known values reaches it, and no new one may be tried"
    return f"{probes} new {'value' if probes == 1 else 'values'} did not reach it"


def _next(points: Sequence[_Point], ends: tuple[float, float], tolerance: float) -> float | _End:
    """The value to try next, or why there is none. ends: the densest and the sparsest value."""
    if (pair := _bracket(points)) is not None:
        return _inside(*pair)
    dense, sparse = ends
    if points[0].excess > 0:
        return _outside(points, sparse, tolerance)
    too_sparse = list(itertools.takewhile(lambda point: point.excess <= 0, points))
    return _outside(too_sparse[::-1], dense, tolerance)


def _bracket(points: Sequence[_Point]) -> tuple[_Point, _Point] | None:
    """The densest neighbours of which one keeps too much and the next too little."""
    pairs = itertools.pairwise(points)
    return next(((one, other) for one, other in pairs if one.excess > 0 >= other.excess), None)


def _inside(dense: _Point, sparse: _Point) -> float | _End:
    """A value between two that surround the density."""
    width = math.log(sparse.value / dense.value)
    if abs(width) <= RESOLUTION:
        return _End("the density jumps over it", (dense, sparse))
    share = dense.excess / (dense.excess - sparse.excess) if math.isfinite(sparse.excess) else 0.5
    share = min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)
    return _rounded(math.log(dense.value) + share * width, abs(width))


def _outside(points: Sequence[_Point], limit: float, tolerance: float) -> float | _End:
    """A value beyond the last of these points, which all lie on one side of the density.

    They are ordered towards the limit, where the search ends.
    """
    last = points[-1]
    if last.value == limit:
        return _End("it is not reached at the end of the range")
    slope = 1.0  # of log odds over log value, where nothing is known of it
    if len(points) > 1 and math.isfinite(last.excess + points[-2].excess):
        width = abs(math.log(last.value / points[-2].value))
        nearer = abs(points[-2].excess) - abs(last.excess)
        if width >= PLATEAU and nearer <= math.log1p(tolerance) and _has_changed(points):
            return _End("the density stops changing before it is reached", (points[-2], last))
        slope = max(nearer / width, 1e-9)
    step = abs(last.excess) / slope if math.isfinite(last.excess) else BLIND_STEP
    step = min(max(step, SMALLEST_STEP), LARGEST_STEP)
    room = math.log(limit / last.value)
    if step >= abs(room):
        return limit
    return _rounded(math.log(last.value) + math.copysign(step, room), step)


def _has_changed(points: Sequence[_Point]) -> bool:
    """Whether a plateau at the end lies below a slope; a plateau before any slope is no floor."""
    changes = (abs(point.excess) - abs(points[-1].excess) for point in points if math.isfinite(point.excess))
    return max(changes) > FALLEN


def _rounded(place: float, width: float) -> float:
    """exp(place) with the fewest digits, at least two, that move it by at most a tenth of the width."""
    exact = math.exp(place)
    roundings = (float(f"{exact:.{digits}e}") for digits in range(1, 17))
    return next(value for value in roundings if abs(math.log(value) - place) <= width / 10)


def _match(
    value: float | None, end: _End | None, densities: Mapping[float, float | None], tried: Sequence[float]
) -> DensityMatch:
    pair = None if end is None or end.between is None else sorted(point.value for point in end.between)
    return DensityMatch(
        value=value,
        density=None if value is None else densities[value],
        reason=end.reason if end else "",
        between=None if pair is None else (pair[0], pair[1]),
        densities=dict(sorted(densities.items())),
        tried=tuple(tried),
    )


def _check(*, density: float, low: float, high: float, tolerance: float, probes: int) -> None:
    if not 0 < density < 1:
        raise ValueError(f"density is {density}: it must lie between 0 and 1")
    if not 0 < low < high < math.inf:
        raise ValueError(f"low is {low} and high is {high}: they must be positive, low the smaller one")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: it must lie between 0 and 1")
    if probes < 0:
        raise ValueError(f"probes is {probes}: it must be 0 or more")


def _checked(value: float, density: float | None) -> float | None:
    """The density of a value. Raises ValueError unless it is None or lies in [0, 1]."""
    if density is not None and not 0 <= density <= 1:
        raise ValueError(f"the density at {value:g} is {density}: it must lie in [0, 1], or be None")
    return density
