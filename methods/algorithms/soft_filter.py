"""Soft filter pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods import units
from methods.base import Context, Method, check_duration, check_fraction
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class SoftFilter(Method):
    """Sets the filters and neurons of least l2 norm to 0 after each epoch, and trains them on.

    He, Kang, Dong, Fu, Yang, "Soft Filter Pruning for Accelerating Deep Convolutional Neural
    Networks", IJCAI 2018, arXiv:1808.06866.

    After each epoch, in every layer, with F_j the weights of filter j:
        ||F_j||_2 = sqrt(sum of the squares of F_j)
        set the share P of the filters with the smallest norms to 0.
    The next epoch trains all filters, so one that was set to 0 may recover. After the last step
    these filters are pruned for good.

    A filter is a row of the weight: a neuron of a linear layer, an output channel of a convolution,
    and in a recurrent layer one gate of one hidden unit, for input and recurrent weights
    separately. The last weight of the model stays dense, because its rows are the model's outputs
    (`units.prunable`: exclude the output layer where it is not the last one).

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - P, for all layers | the authors' script for CIFAR-10: 0.7 |
    | update_every | | 1 epoch |

    Departures: density is that of all weights, the dense last layer included. The other layers all
    keep the same share of their filters, rounded down or up, and that share is lower to make up for
    the dense layer. Linear and recurrent layers are pruned too. The columns of the next layer that
    read a pruned filter count as kept; `finalize(model, compact=True)` cuts them out. As in the
    authors' code, the biases, the normalisation and the optimizer's state of filters that are set
    to 0 stay, so that momentum moves these filters in the next step; and no training follows the
    last pruning. Their script also prunes once before the first epoch. At the densities of this
    project, far below the paper's, the last pruning costs so much accuracy that a random mask of
    single weights (`static`) is better.
    """

    name = "soft_filter"
    version = 1
    reference = "arXiv:1808.06866"
    density_promise = "final"
    granularity = "unit"
    weight_gradient = "dense"

    density: float = 0.05
    update_every: int | str = "1 epoch"

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_duration("update_every", self.update_every)

    def enter_phase(self, ctx: Context) -> None:
        self.chosen(ctx)  # a density that is too low fails before the training

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        if ctx.step == ctx.total_steps:
            ctx.masks.set(self.chosen(ctx))
        elif every(ctx.step, steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)):
            for name, mask in self.chosen(ctx).items():
                if ctx.weights[name].parameter.requires_grad:  # a frozen filter could not recover
                    ctx.weights[name].parameter.mul_(mask)

    def chosen(self, ctx: Context) -> dict[str, Tensor]:
        """Masks of the filters with the largest norms, without those of dense layers."""
        prunable = units.prunable(ctx.model, ctx.weights)
        rows = {name: units.by_unit(weight, weight.parameter.detach()) for name, weight in prunable.items()}
        norms = {name: row.norm(dim=1) for name, row in rows.items()}
        total = round(self.density * ctx.total_weights)
        room = units.room(ctx.weights, prunable, total=total, method=self.name)
        share = room / max(1, sum(weight.parameter.numel() for weight in prunable.values()))
        turns = {name: in_turn(norm, share) for name, norm in norms.items()}
        return units.keep_best(ctx.weights, turns, total=total, method=self.name)


def in_turn(norm: Tensor, share: float) -> Tensor:
    """Scores by which all layers keep the same share of their filters, the largest norms first: [filters].

    Those beyond ceil(share * filters) of a layer have the score -inf. Norms that are not finite
    count as the largest, so that a training that diverged still shows it.
    """
    place = norm.argsort(descending=True, stable=True).argsort() + 1
    return torch.where(place <= math.ceil(share * len(norm)), -place / len(norm), -math.inf)
