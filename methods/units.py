"""Masks of whole output units: neurons of a linear layer, filters of a convolution.

For methods with `granularity = "unit"`. `layers.OutputUnits` says which entries are one unit's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from methods.layers import MaskableWeight


def by_unit(weight: MaskableWeight, values: Tensor) -> Tensor:
    """Values in the shape of the weight, a row per output unit: [units, entries of a unit]."""
    return weight.units.rows(values).flatten(1)


def mask_of(weight: MaskableWeight, keep: Tensor) -> Tensor:
    """The mask of a weight that keeps whole units: bool, shape of the weight. keep: bool [units]."""
    rows = weight.units.rows(weight.parameter.detach())
    return weight.units.restored(keep.view(-1, *[1] * (rows.dim() - 1)).expand_as(rows)).contiguous()


def keep_best(weights: Mapping[str, MaskableWeight], scores: Mapping[str, Tensor], *, total: int) -> dict[str, Tensor]:
    """Keep units in the order of their scores over all layers, as many as fit in `total` weights.

    scores: [units] for each weight that may be pruned; other weights stay dense and count. Each
    layer keeps at least its best unit. Returns masks of all weights in `scores`. Raises ValueError
    where these minimum counts exceed the total.
    """
    keep = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    sizes = {name: weights[name].parameter.numel() // len(score) for name, score in scores.items()}
    budget = total - sum(weight.parameter.numel() for name, weight in weights.items() if name not in scores)
    for name, score in scores.items():
        keep[name][score.argmax()] = True
        budget -= sizes[name]
    if budget < 0:
        dense = ", ".join(name for name in weights if name not in scores)
        raise ValueError(
            f"{total} weights are too few: {total - budget} are needed for one unit of each layer"
            + (f" and all of {dense}" if dense else "")
        )
    ranked = sorted(
        ((float(value), name, unit) for name, score in scores.items() for unit, value in enumerate(score.tolist())),
        key=lambda entry: -entry[0],
    )
    for _, name, unit in ranked:
        if not keep[name][unit] and sizes[name] <= budget:
            keep[name][unit] = True
            budget -= sizes[name]
    return {name: mask_of(weights[name], units) for name, units in keep.items()}
