"""Soft filter pruning on four filters of two weights, and its promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from methods.algorithms.soft_filter import in_turn

# filters      3  4      1.5  1.5     0  -2     2.5  0
# l2 norm      5         2.12         2         2.5        the largest two: the first and the last
# l1 norm      7         3            2         2.5        (by the l1 norm, the first and the second)
FILTERS = torch.tensor([[3.0, 4.0], [1.5, 1.5], [0.0, -2.0], [2.5, 0.0]])
KEPT = [[1, 1], [0, 0], [0, 0], [1, 1]]


def attached(lr: float, **values: Any) -> tuple[nn.Module, methods.Attachment]:
    """The last layer has 4 weights and stays dense: 8 of 12 weights are two filters and the last layer."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(FILTERS)
    given = {"density": 8 / 12, "total_steps": 6, "steps_per_epoch": 2} | values
    at = methods.attach(model, "soft_filter", **given)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=lr, momentum=0.9))
    return model, at


def step(model: nn.Module, at: methods.Attachment) -> torch.Tensor:
    model.zero_grad()
    model(torch.tensor([[1.0, -1.0], [0.5, 2.0]])).square().sum().backward()
    at.step()
    return at.weights()["0.weight"].detach().clone()


def test_after_each_epoch_the_filters_of_least_l2_norm_are_zero_and_nothing_is_masked() -> None:
    model, at = attached(lr=0.0)
    assert torch.equal(step(model, at), FILTERS)
    assert torch.equal(step(model, at), FILTERS * torch.tensor(KEPT))
    assert at.density() == 1


def test_a_filter_that_was_set_to_zero_trains_on_and_is_pruned_at_the_end_only() -> None:
    model, at = attached(lr=1e-3)
    seen = [step(model, at) for _ in range(6)]
    assert not seen[1][1:3].any()
    assert seen[2][1:3].all(), "both filters train on"
    assert not seen[3][1:3].any()
    assert at.masks()["0.weight"].int().tolist() == KEPT
    assert not seen[5][1:3].any()
    assert at.masks()["1.weight"].all()
    assert at.density() == 8 / 12


def test_a_filter_that_grows_takes_the_place_of_another() -> None:
    model, at = attached(lr=0.0)
    for _ in range(2):
        step(model, at)
    with torch.no_grad():
        at.weights()["0.weight"][1] = 3.0
    for _ in range(4):
        step(model, at)
    assert at.masks()["0.weight"].int().tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_layers_keep_the_same_share_of_filters_and_the_density_holds_to_within_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 40, 3), nn.Flatten(), nn.Linear(640, 10))
    at = methods.attach(model, "soft_filter", total_steps=2, steps_per_epoch=1, density=0.65)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.01))
    for _ in range(2):
        F.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.arange(4)).backward()
        at.step()
    masks = at.masks()
    kept = {name: mask.flatten(1).any(1) for name, mask in masks.items()}
    assert all(torch.equal(mask.flatten(1).all(1), kept[name]) for name, mask in masks.items()), "whole filters"
    shares = [float(kept[name].float().mean()) for name in ("0.weight", "2.weight")]
    assert abs(shares[0] - shares[1]) < 1 / 20
    total = 180 + 7200 + 6400
    assert round(0.65 * total) - 180 < sum(int(mask.sum()) for mask in masks.values()) <= round(0.65 * total)
    assert masks["4.weight"].all()


def test_a_frozen_layer_is_not_set_to_zero_before_the_end() -> None:
    model, at = attached(lr=1e-3, include=["0", "1"])
    model[0].requires_grad_(False)
    for _ in range(5):
        assert torch.equal(step(model, at), FILTERS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 1.5}, r"density is 1\.5: it must lie in \(0, 1\]"),
        ({"update_every": "often"}, "duration 'often' is not"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("soft_filter", **values)


def test_a_density_that_cannot_be_had_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"soft_filter: 4 weights are too few: 6 are needed"):
        attached(lr=0.0, density=4 / 12)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_training_that_diverged_goes_on_and_shows_it(value: float) -> None:
    """As with other methods, whose training the loop then ends."""
    model, at = attached(lr=0.0)
    with torch.no_grad():
        at.weights()["0.weight"][2, 0] = value
    for _ in range(6):
        assert not step(model, at).isfinite().all()
    assert at.density() == 8 / 12
    assert in_turn(torch.tensor([1.0, abs(value), 3.0, 2.0]), 0.5).tolist() == [-torch.inf, -0.25, -0.5, -torch.inf]
