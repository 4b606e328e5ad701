"""A fixed random mask of exact density."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Context, Method, check_choice, check_fraction
from methods.budgets import ALLOCATIONS
from methods.drop_grow import random_masks


@dataclass(kw_only=True)
class Static(Method):
    """Trains a random sparse network whose mask never changes.

    Evci et al., "Rigging the Lottery", arXiv:1911.11134 (the baseline called Static).

    The kept entries of each layer are drawn uniformly. Their number comes from `budgets.allocate`;
    the numbers of all layers sum to round(density * weights).

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - S | 0.2 to 0.01 |
    | allocation | uniform, ERK | both |

    Departures: counts are exact; the published code draws each entry independently. The uniform
    allocation covers the first layer too.
    """

    name = "static"
    version = 1
    reference = "arXiv:1911.11134"
    density_promise = "exact"
    pruned_gradients = "zero"

    density: float = 0.05
    allocation: str = "erk"

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_choice("allocation", self.allocation, ALLOCATIONS)

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.density, allocation=self.allocation)
