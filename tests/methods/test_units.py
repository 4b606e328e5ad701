"""Masks of whole units, and the schedule and choice that new methods share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods import scores, units
from methods.layers import maskable_weights
from methods.schedules import cubic


def weights() -> dict[str, units.MaskableWeight]:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(2, 4, 3),
            "grouped": nn.Conv2d(4, 4, 3, groups=2),
            "transposed": nn.ConvTranspose2d(4, 2, 2),
            "last": nn.Linear(8, 3),
        }
    )
    return maskable_weights(model)


def test_a_mask_of_units_keeps_whole_filters() -> None:
    for weight in weights().values():
        keep = torch.arange(len(units.by_unit(weight, weight.parameter))) % 2 == 0
        mask = units.mask_of(weight, keep)
        assert mask.shape == weight.parameter.shape
        assert torch.equal(units.by_unit(weight, mask), keep[:, None].expand(-1, units.by_unit(weight, mask).shape[1]))


def test_the_best_units_that_fit_are_kept_and_each_layer_keeps_one() -> None:
    # units: conv 4 of 18 weights, grouped 4 of 18, transposed 2 of 16; last is dense: 24
    found = weights()
    given = {
        "conv.weight": torch.tensor([1.0, 9.0, 8.0, 2.0]),
        "grouped.weight": torch.tensor([0.1, 0.2, 0.4, 0.3]),
        "transposed.weight": torch.tensor([5.0, 7.0]),
    }
    masks = units.keep_best(found, given, total=24 + 18 * 3 + 16 + 10)  # 10 are too few for one more unit
    kept = {name: units.by_unit(found[name], mask)[:, 0].tolist() for name, mask in masks.items()}
    assert kept["conv.weight"] == [False, True, True, False]
    assert kept["grouped.weight"] == [False, False, True, False]
    assert kept["transposed.weight"] == [False, True]
    with pytest.raises(ValueError, match=r"75 weights are too few: 76 are needed .* and all of last\.weight"):
        units.keep_best(found, given, total=75)


def test_top_of_all_ranks_over_layers() -> None:
    masks = scores.top_of_all({"a": torch.tensor([[5.0, 1.0]]), "b": torch.tensor([4.0, 3.0, 0.0])}, 3)
    assert masks["a"].tolist() == [[True, False]]
    assert masks["b"].tolist() == [True, True, False]


def test_the_cubic_schedule() -> None:
    values = [cubic(step, begin=10, end=30, start=1.0, final=0.2) for step in (0, 10, 20, 30, 99)]
    assert values == pytest.approx([1.0, 1.0, 0.2 + 0.8 / 8, 0.2, 0.2])
