"""Masks of whole output units: neurons of a linear layer, filters of a convolution.

Methods with `granularity = "unit"` use them. `layers.OutputUnits` says which entries belong to a
unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from methods.budgets import least_density
from methods.layers import MaskableWeight


def prunable(model: nn.Module, weights: Mapping[str, MaskableWeight]) -> dict[str, MaskableWeight]:
    """The weights whose units may be pruned: all but the model's last one, whose units are its outputs.

    The last one is the last parameter of the model with two or more axes, maskable or not. A model
    that registers its output layer before other ones, such as an auxiliary head, has to exclude it:
    `attach(exclude=["classifier"])`.
    """
    outputs = [parameter for parameter in model.parameters() if parameter.dim() > 1][-1]
    return {name: weight for name, weight in weights.items() if weight.parameter is not outputs}


def by_unit(weight: MaskableWeight, values: Tensor) -> Tensor:
    """Values in the shape of the weight as one row per output unit: [units, entries of a unit]."""
    return weight.units.rows(values).flatten(1)


def mask_of(weight: MaskableWeight, keep: Tensor) -> Tensor:
    """The mask of a weight that keeps whole units: bool, shape of the weight. keep: bool [units]."""
    rows = weight.units.rows(weight.parameter.detach())
    return weight.units.restored(keep.view(-1, *[1] * (rows.dim() - 1)).expand_as(rows)).contiguous()


def room(
    weights: Mapping[str, MaskableWeight], prunable: Mapping[str, MaskableWeight], *, total: int, method: str = ""
) -> int:
    """How many of `total` weights the prunable layers may keep, where the other layers stay dense.

    method: the name that the error begins with. Raises ValueError where these are too few for one
    unit of each prunable layer.
    """
    dense = {name: weight.parameter.numel() for name, weight in weights.items() if name not in prunable}
    least = sum(unit_size(weight) for weight in prunable.values())
    if (left := total - sum(dense.values())) < least:
        needed, everything = total - left + least, sum(weight.parameter.numel() for weight in weights.values())
        raise ValueError(
            f"{method}{': ' if method else ''}{total} weights are too few: {needed} are needed for one unit of each "
            f"layer{' and all of ' if dense else ''}{', '.join(dense)}; give a density of at least "
            f"{least_density(needed, everything):g}"
        )
    return left


def unit_size(weight: MaskableWeight) -> int:
    """The number of weights of one unit."""
    return by_unit(weight, weight.parameter.detach()).shape[1]


def in_turn(scores: Mapping[str, Tensor], shares: Mapping[str, float]) -> dict[str, Tensor]:
    """Scores for `keep_best` with which layers keep units in proportion to their shares.

    scores: [units] for each weight, compared only within a layer; each layer keeps its best units
    first. shares: the number of units that each layer should keep, up to a common factor.
    """
    ranks = {name: score.argsort(descending=True, stable=True).argsort() for name, score in scores.items()}
    return {name: -(rank + 1) / shares[name] for name, rank in ranks.items()}


def keep_best(
    weights: Mapping[str, MaskableWeight], scores: Mapping[str, Tensor], *, total: int, method: str = ""
) -> dict[str, Tensor]:
    """Keep units in the order of their scores over all layers, as many as fit in `total` weights.

    scores: [units] for each weight that may be pruned. The other weights stay dense and count in
    the total. Each layer keeps at least its best unit; all other units with the score -inf are
    pruned. Returns masks of the weights in `scores`. Raises ValueError as `room` does.
    """
    budget = room(weights, {name: weights[name] for name in scores}, total=total, method=method)
    keep = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    sizes = {name: unit_size(weights[name]) for name in scores}
    for name, score in scores.items():
        keep[name][score.argmax()] = True
        budget -= sizes[name]
    ranked = sorted(
        ((float(value), name, unit) for name, score in scores.items() for unit, value in enumerate(score.tolist())),
        key=lambda entry: -entry[0],
    )
    for value, name, unit in ranked:
        if value > -math.inf and not keep[name][unit] and sizes[name] <= budget:
            keep[name][unit] = True
            budget -= sizes[name]
    return {name: mask_of(weights[name], units) for name, units in keep.items()}
