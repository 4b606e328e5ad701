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


def test_the_models_last_weight_is_not_prunable_whether_it_is_maskable_or_not() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    assert list(units.prunable(model, maskable_weights(model))) == ["0.weight"]
    assert list(units.prunable(model, maskable_weights(model, exclude=["3"]))) == ["0.weight"]


def test_the_room_is_what_dense_layers_leave() -> None:
    found = weights()  # conv 72 in units of 18, grouped 72 of 18, transposed 32 of 16, last 24
    prunable = {name: weight for name, weight in found.items() if name != "last.weight"}
    assert units.room(found, prunable, total=100) == 100 - 24
    assert units.room(found, prunable, total=24 + 18 + 18 + 16) == 52
    with pytest.raises(ValueError, match=r"mine: 75 weights are too few: 76 are needed .* and all of last\.weight"):
        units.room(found, prunable, total=75, method="mine")


def test_in_turn_layers_keep_their_best_units_at_different_rates() -> None:
    # conv keeps 1 unit for each 2 of grouped, each the best first
    found = weights()
    given = {
        "conv.weight": torch.tensor([5.0, 7.0, 6.0, 4.0]),
        "grouped.weight": torch.tensor([0.1, 0.4, 0.3, 0.2]),
    }
    turns = units.in_turn(given, {"conv.weight": 1.0, "grouped.weight": 2.0})
    assert turns["conv.weight"].tolist() == [-3.0, -1.0, -2.0, -4.0]
    assert turns["grouped.weight"].tolist() == [-2.0, -0.5, -1.0, -1.5]
    masks = units.keep_best(found, turns, total=24 + 32 + 3 * 18)
    kept = {name: units.by_unit(found[name], mask)[:, 0].tolist() for name, mask in masks.items()}
    assert kept == {"conv.weight": [False, True, False, False], "grouped.weight": [False, True, True, False]}


def test_a_unit_without_a_score_is_kept_only_where_its_layer_has_no_other() -> None:
    found = {name: weight for name, weight in weights().items() if name in ("conv.weight", "grouped.weight")}
    given = {
        "conv.weight": torch.tensor([1.0, -torch.inf, -torch.inf, 2.0]),
        "grouped.weight": torch.full((4,), -torch.inf),
    }
    masks = units.keep_best(found, given, total=144)
    kept = {name: units.by_unit(found[name], mask)[:, 0].tolist() for name, mask in masks.items()}
    assert kept == {"conv.weight": [True, False, False, True], "grouped.weight": [True, False, False, False]}


def test_top_of_all_ranks_over_layers() -> None:
    masks = scores.top_of_all({"a": torch.tensor([[5.0, 1.0]]), "b": torch.tensor([4.0, 3.0, 0.0])}, 3)
    assert masks["a"].tolist() == [[True, False]]
    assert masks["b"].tolist() == [True, True, False]


def test_the_cubic_schedule() -> None:
    values = [cubic(step, begin=10, end=30, start=1.0, final=0.2) for step in (0, 10, 20, 30, 99)]
    assert values == pytest.approx([1.0, 1.0, 0.2 + 0.8 / 8, 0.2, 0.2])
