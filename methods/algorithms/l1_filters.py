"""Pruning of filters by their l1 norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from methods import units
from methods.base import Context, Method, Phase, check_choice, check_fraction, check_positive
from methods.budgets import ALLOCATIONS, allocate


@dataclass(kw_only=True)
class L1Filters(Method):
    """Trains, prunes whole filters and neurons of least l1 norm once, and trains on.

    Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017,
    arXiv:1608.08710.

    After the training, in each layer, with F_j the weights of filter j (section 3.1):
        s_j = sum |F_j|
        prune the filters of smallest s_j;
        train on with the rest (section 3.4, "prune once and retrain").

    A filter is a row of the weight: a neuron of a linear layer, an output channel of a convolution,
    and in a recurrent layer one gate of one hidden unit, for input and recurrent weights
    separately. The last weight of the model stays dense, because its rows are the model's outputs
    (`units.prunable`: exclude the output layer where it is not the last one).

    | hyperparameter | symbol | paper (not verified) |
    |---|---|---|
    | density | 1 - pruned share of the weights | 0.36 to 0.98 |
    | allocation | share per layer | chosen by hand, from each layer's sensitivity |
    | fine_tune | retraining / training | 0.25 |
    | fine_tune_lr | learning rate / that of the training's start | 0.01, constant |

    Departures: `budgets.allocate` divides the density among the layers, and the dense last layer
    counts. What rounding to whole filters leaves over goes to layers whose next filter fits. The
    masks are those of filters. The columns of the next layer that read a pruned filter count as
    kept, though they act only as a bias, or not at all; `finalize(model, compact=True)` cuts them
    out. Biases and normalisation of pruned filters stay. Filters whose outputs a residual
    connection adds are chosen separately. fine_tune_lr is 1 by default: the densities of this
    project are far below the paper's, so the few filters that are left have to learn anew. The
    learning-rate schedule restarts; the paper's rate is constant. At 5 % LeNet-300-100 keeps about
    12 neurons of each hidden layer, and is less accurate than a random mask of single weights
    (`static`).
    """

    name = "l1_filters"
    version = 1
    reference = "arXiv:1608.08710"
    density_promise = "final"
    granularity = "unit"
    pruned_gradients = "zero"

    density: float = 0.05
    allocation: str = "erk"
    fine_tune: float = 0.25
    fine_tune_lr: float = 1.0

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        for name in ("fine_tune", "fine_tune_lr"):
            check_positive(name, getattr(self, name))

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        steps = max(1, round(self.fine_tune * total_steps))
        return Phase("train", total_steps), Phase("fine-tune", steps, lr="restart", lr_scale=self.fine_tune_lr)

    def enter_phase(self, ctx: Context) -> None:
        masks = self.chosen(ctx)  # also at the start, so that a density that is too low fails at once
        if ctx.phase.name == "fine-tune":
            ctx.masks.set(masks)

    def chosen(self, ctx: Context) -> dict[str, Tensor]:
        """Masks of the filters that are kept now, without those of dense layers."""
        prunable = units.prunable(ctx.model, ctx.weights)
        norms = {name: l1_norms(units.by_unit(weight, weight.parameter)) for name, weight in prunable.items()}
        total = round(self.density * ctx.total_weights)
        room = units.room(ctx.weights, prunable, total=total, method=self.name)
        shapes = {name: tuple(weight.parameter.shape) for name, weight in prunable.items()}
        density = room / max(1, sum(map(math.prod, shapes.values())))
        counts = allocate(shapes, density=density, allocation=self.allocation) if shapes else {}
        filters = {name: counts[name] / units.unit_size(weight) for name, weight in prunable.items()}
        return units.keep_best(ctx.weights, units.in_turn(norms, filters), total=total, method=self.name)


def l1_norms(rows: Tensor) -> Tensor:
    """The sum of absolute values of each row: [units]."""
    return rows.detach().abs().sum(1)
