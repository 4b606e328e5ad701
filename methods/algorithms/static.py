"""A fixed random mask of exact density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.base import Context, Method, check_fraction
from methods.budgets import check_allocation
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
    | allocation | uniform, ER, ERK | all three; `pattern` is ours |
    | pattern | | ours: the layer densities that the allocation `pattern` scales to the density |

    Departures: the uniform allocation covers the first layer too. As in the authors' code, counts
    are exact.
    """

    name = "static"
    version = 1
    reference = "arXiv:1911.11134"
    density_promise = "exact"
    pruned_gradients = "zero"
    added: ClassVar[Mapping[str, Any]] = {"pattern": None}

    density: float = 0.05
    allocation: str = "erk"
    pattern: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_allocation(self.allocation, self.pattern)

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.density, allocation=self.allocation, pattern=self.pattern)
