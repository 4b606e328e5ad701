"""Which settings of several methods keep about as many weights, so that their accuracies may be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.recipes import Recipe
from analysis.settings import Setting

FACTOR = 1.25  # the margin that the verdicts on the paper's densities have


@dataclass(frozen=True)
class DensityMatch:
    """Settings of one recipe at one density, a method each; emergent methods by their nearest alpha."""

    recipe: Recipe
    density: float
    settings: tuple[Setting, ...]
    too_far: tuple[str, ...]


def matches(recipe: Recipe) -> list[DensityMatch]:
    """For each density that some method was asked to keep: whoever keeps it within the factor 1.25."""
    densities = sorted({s.density for s in recipe.sparse if s.density is not None}, reverse=True)
    emergent = sorted({s.method for s in recipe.sparse if s.density is None})
    found = []
    for density in densities:
        exact = [s for s in recipe.sparse if s.density == density]
        nearest = {method: nearest_setting(recipe, method, density) for method in emergent}
        near = [s for s in nearest.values() if away(s, density) <= math.log(FACTOR) + 1e-9]
        far = tuple(m for m, s in nearest.items() if s not in near)
        chosen = {s.method: s for s in [*near, *exact]}
        found.append(DensityMatch(recipe, density, tuple(chosen.values()), far))
    return found


def nearest_setting(recipe: Recipe, method: str, density: float) -> Setting:
    """The method's setting whose mean density at the last epoch comes nearest, on a log scale."""
    return min(recipe.of(method), key=lambda s: away(s, density))


def away(setting: Setting, density: float) -> float:
    """How far a setting's mean density is from another, as a log ratio without its sign."""
    mean = float(setting.done["density"].mean())
    return abs(math.log(mean / density)) if mean > 0 else math.inf
