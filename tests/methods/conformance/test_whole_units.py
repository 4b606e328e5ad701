"""The density promise of methods that prune whole units: at most the density, by less than the largest unit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from methods import Context, Method, units
from methods.conformance import ConformanceError, check_method


@dataclass(kw_only=True)
class LargestUnits(Method):
    """Keeps the units of largest norm from the start."""

    name = "largest_units"
    version = 1
    reference = "none"
    density_promise = "exact"
    granularity = "unit"
    pruned_gradients = "zero"

    density: float = 0.5

    def total(self, ctx: Context) -> int:
        return round(self.density * sum(weight.parameter.numel() for weight in ctx.weights.values()))

    def enter_phase(self, ctx: Context) -> None:
        prunable = units.prunable(ctx.model, ctx.weights)
        norms = {name: units.by_unit(w, w.parameter.detach()).norm(dim=1) for name, w in prunable.items()}
        ctx.masks.set(units.keep_best(ctx.weights, norms, total=self.total(ctx)))


class KeepsTooMany(LargestUnits):
    def total(self, ctx: Context) -> int:
        return super().total(ctx) + 60


class KeepsTooFew(LargestUnits):
    def total(self, ctx: Context) -> int:
        return super().total(ctx) - 60


def test_units_that_do_not_fit_exactly_keep_the_promise() -> None:
    check_method(LargestUnits)


@pytest.mark.parametrize("cls", [KeepsTooMany, KeepsTooFew])
def test_more_than_a_unit_off_breaks_it(cls: type[Method]) -> None:
    with pytest.raises(ConformanceError, match=r"check_density_promise on mlp: \d+ weights kept, not \d+"):
        check_method(cls)
