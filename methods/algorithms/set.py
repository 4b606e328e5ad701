"""Sparse Evolutionary Training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, check_choice
from methods.drop_grow import DropGrow


@dataclass(kw_only=True)
class SET(DropGrow):
    """Drops the weights nearest to zero after each epoch and grows as many at random places.

    Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", Nature Communications 9, 2383 (2018).

    Each update, per layer, with zeta the drop fraction:
        drop the smallest zeta of the positive kept weights, the largest zeta of the negative kept
        weights, and kept weights that are exactly 0;
        grow as many weights, uniformly among the positions not kept, the dropped ones included.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | from epsilon = 20 | 1 to 10 % |
    | allocation | Erdos-Renyi, eq. 1 | erk |
    | pattern | | ours: the layer densities of the allocation `pattern` |
    | drop_fraction | zeta | 0.3 |
    | update_every | | 1 epoch |
    | drop | | signed; `magnitude` drops the zeta of smallest absolute value |

    Departures: the initial counts are exact, not independent draws. Grown weights start at 0, as in
    the authors' Keras code, and not at random values as in their sparse code. Only the optimizer
    state of grown weights is zeroed; their code makes a new optimizer each epoch. The output layer
    is sparse like every other layer. There is no update after the last step.
    """

    name = "set"
    version = 1
    reference = "10.1038/s41467-018-04316-3"
    pruned_gradients = "zero"

    drop: str = "signed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("drop", self.drop, ("signed", "magnitude"))

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        return self.drop_mask(ctx.weights[name].parameter, mask)

    def drop_mask(self, weight: Tensor, mask: Tensor) -> Tensor:
        """The kept entries that one update drops: bool, shape of the weight."""
        if self.drop == "magnitude":
            return smallest(weight, mask, self.drop_fraction)
        signs = (mask & (weight > 0), mask & (weight < 0))
        nearest_zero = [smallest(weight, sign, self.drop_fraction) for sign in signs]
        return nearest_zero[0] | nearest_zero[1] | (mask & (weight == 0))

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        return scores.top(scores.random(kept, ctx.generator), count, among=~kept)


def smallest(weight: Tensor, among: Tensor, fraction: float) -> Tensor:
    """Mask of the floor(fraction * n) entries of least magnitude among n true ones."""
    count = int(fraction * int(torch.count_nonzero(among)))
    return scores.top(-scores.magnitude(weight), count, among=among)
