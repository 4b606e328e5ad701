"""Static: a random mask of exact counts that never changes."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import methods
from methods.budgets import allocate


def lenet() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def attach(model: nn.Module, seed: int = 0, **values: float | str) -> methods.Attachment:
    return methods.attach(model, "static", total_steps=5, steps_per_epoch=5, seed=seed, **values)


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
def test_every_layer_keeps_exactly_its_budget(allocation: str) -> None:
    attached = attach(lenet(), density=0.02, allocation=allocation)
    shapes = {name: tuple(mask.shape) for name, mask in attached.masks().items()}
    want = allocate(shapes, density=0.02, allocation=allocation)
    assert {name: int(mask.sum()) for name, mask in attached.masks().items()} == want
    assert attached.kept_counts().tolist() == list(want.values())
    assert attached.density() == 5324 / 266200


@pytest.mark.parametrize("method", ["static", "set", "dsr", "sparse_momentum"])
def test_a_mask_starts_from_the_pattern_of_another_network(method: str) -> None:
    given = {"density": 0.02, "allocation": "pattern", "pattern": [0.01, 0.09, 0.3]}
    attached = methods.attach(lenet(), method, total_steps=5, steps_per_epoch=5, **given)
    # 2352 + 2700 + 300 = 5352, scaled to 5324
    assert attached.kept_counts().tolist() == [2340, 2686, 298]
    assert attached.method.identity()["pattern"] == (0.01, 0.09, 0.3)


@pytest.mark.parametrize("method", ["static", "set", "dsr", "sparse_momentum"])
def test_without_a_pattern_a_cell_keeps_its_identity(method: str) -> None:
    assert "pattern" not in methods.create(method).identity()


def test_kept_weights_have_their_first_values_and_pruned_ones_are_zero() -> None:
    model = lenet()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = attach(model, density=0.1).masks()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, first[name] * masks[name] if name in masks else first[name])


def test_the_mask_never_changes_and_pruned_weights_stay_zero() -> None:
    model = nn.Linear(30, 20)
    attached = attach(model, density=0.2)
    attached.bind(torch.optim.SGD(attached.parameter_groups(weight_decay=0.01), lr=0.1, momentum=0.9))
    mask, weight = attached.masks()["weight"], model.weight.detach().clone()
    for _ in range(5):
        model(torch.randn(4, 30)).square().sum().backward()
        attached.step()
        assert torch.equal(attached.masks()["weight"], mask)
        assert not model.weight[~mask].any()
    assert (model.weight[mask] != weight[mask]).all()


def test_same_seed_same_masks_other_seed_other_masks() -> None:
    first, same, other = (attach(lenet(), seed=seed, density=0.1).masks()["0.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_masks_do_not_depend_on_the_weights() -> None:
    a, b = lenet(), lenet()
    assert torch.equal(attach(a).masks()["0.weight"], attach(b).masks()["0.weight"])
    assert not torch.equal(a.get_parameter("0.bias"), b.get_parameter("0.bias"))


def test_kept_positions_are_spread_evenly() -> None:
    mask = attach(lenet(), density=0.1, allocation="uniform").masks()["0.weight"].float()
    assert abs(float(mask[:150].mean()) - 0.1) < 0.005
    assert abs(float(mask[:, :392].mean()) - 0.1) < 0.005


def test_values_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"density is 1.5: it must lie in \(0, 1\]"):
        methods.create("static", density=1.5)
    with pytest.raises(ValueError, match="allocation is 'random'; valid: er, erk, pattern, uniform"):
        methods.create("static", allocation="random")


@pytest.mark.parametrize("method", ["static", "set", "dsr", "sparse_momentum"])
def test_a_density_that_an_allocation_cannot_give_names_method_layer_and_value(method: str) -> None:
    for given, said in (
        ({"density": 4e-6}, "density 4e-06 keeps 1 weights, fewer than the 3 layers: 4.weight would get 0.073 of its"),
        (
            {"density": 0.5, "allocation": "pattern", "pattern": (0.1, 0.1, 0.9)},
            "at density 0.5 the pattern gives 4.weight a density of 4.369, above 1: at most 0.11445 is possible",
        ),
        (
            {"density": 0.5, "allocation": "pattern", "pattern": (0.1, 0.1)},
            "pattern has 2 densities for 3 layers: 0.weight, 2.weight, 4.weight",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{method}: {re.escape(said)}"):
            methods.attach(lenet(), method, total_steps=5, steps_per_epoch=5, **given)
