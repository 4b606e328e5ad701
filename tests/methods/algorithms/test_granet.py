"""GraNet on eight weights drawn in a comment, against the authors' code, and its counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods

GOLDEN = Path(__file__).parents[2] / "golden" / "granet.json"


def advance(at: methods.Attachment, gradients: dict[str, Tensor], steps: int) -> None:
    """Steps with given gradients."""
    for _ in range(steps):
        weights = at.weights()
        for weight in weights.values():
            weight.grad = None
        torch.stack([(weights[name] * gradient).sum() for name, gradient in gradients.items()]).sum().backward()
        at.step()


def test_eight_weights() -> None:
    # weight    0.1  0.9  -0.8  0.2   0.05  0.3  -0.6  0.7
    # gradient  5    1     1    4     2     1     6    3
    # 4 stay         x     x                      x    x      the largest
    # dropped                                     x    x      r = 0.2525 at half: the ceil(1.01) smallest
    # grown     x                                 x           the largest gradients: -0.6 keeps its value
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.9, -0.8, 0.2], [0.05, 0.3, -0.6, 0.7]]))
    values: dict[str, Any] = {"density": 0.5, "initial_density": 1.0, "update_every": 2, "prune_until": 0.5}
    at = methods.attach(model, "granet", total_steps=4, steps_per_epoch=2, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    advance(at, {"weight": torch.tensor([[5.0, 1.0, 1.0, 4.0], [2.0, 1.0, 6.0, 3.0]])}, 1)
    assert at.density() == 1
    advance(at, {"weight": torch.tensor([[5.0, 1.0, 1.0, 4.0], [2.0, 1.0, 6.0, 3.0]])}, 1)
    assert at.masks()["weight"].tolist() == [[True, True, True, False], [False, False, True, False]]
    assert model.weight.tolist() == [pytest.approx([0.0, 0.9, -0.8, 0.0]), pytest.approx([0.0, 0.0, -0.6, 0.0])]


def test_one_update_is_that_of_the_authors_code() -> None:
    """Their comparison is strict, so their masks keep one weight fewer than they count: 32 here, as ours at 0.197."""
    golden = json.loads(GOLDEN.read_text())
    model = nn.ModuleDict({"a": nn.Linear(8, 10, bias=False), "b": nn.Linear(10, 5, bias=False)})
    values: dict[str, Any] = {"density": 0.197, "initial_density": 0.6, "update_every": 50, "prune_until": 100 / 160}
    at = methods.attach(model, "granet", total_steps=160, steps_per_epoch=10, **values)
    at.set_masks({name: torch.tensor(mask, dtype=torch.bool) for name, mask in golden["masks"].items()})
    for name, weight in golden["weights"].items():
        with torch.no_grad():
            model.get_parameter(name).copy_(torch.tensor(weight))
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    advance(at, {name: torch.tensor(gradient) for name, gradient in golden["gradients"].items()}, 50)
    assert {name: mask.int().tolist() for name, mask in at.masks().items()} == golden["masks_after"]
    for name, weight in golden["weights_after"].items():
        assert torch.equal(model.get_parameter(name), torch.tensor(weight))


def test_the_total_follows_the_cubic_schedule_and_layers_share_it_globally() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 10))  # 900 weights
    values: dict[str, Any] = {"density": 0.1, "initial_density": 0.5, "update_every": 4, "prune_until": 0.5}
    at = methods.attach(model, "granet", total_steps=20, steps_per_epoch=4, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1, momentum=0.9))
    totals, masks = [], at.masks()
    for step in range(1, 21):
        model.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 10).backward()
        pruned = ~at.masks()["0.weight"]
        assert bool(model[0].weight.grad[pruned].any()) == (step in (4, 8, 10, 12, 16)), "dense only for an update"
        at.step()
        totals.append(int(at.kept_counts().sum()))
        moved = any(not torch.equal(mask, masks[name]) for name, mask in at.masks().items())
        assert moved == (step in (4, 8, 10, 12, 16)), step
        masks = at.masks()
    wanted = {step: round(900 * (0.1 + 0.4 * (1 - step / 10) ** 3)) for step in (0, 4, 8)}
    assert totals == [wanted[0]] * 3 + [wanted[4]] * 4 + [wanted[8]] * 2 + [90] * 11


def test_layers_that_are_frozen_keep_their_masks_and_those_without_a_gradient_grow_nothing() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(10, 10) for name in ("frozen", "unused", "used")})
    at = methods.attach(model, "granet", total_steps=6, steps_per_epoch=2, density=0.3, update_every=2)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    model["frozen"].weight.requires_grad_(False)
    before = at.masks()
    for _ in range(6):
        model.zero_grad()
        model["used"](torch.randn(4, 10)).square().sum().backward()
        at.step()
    after = at.masks()
    assert torch.equal(after["frozen.weight"], before["frozen.weight"])
    assert not (after["unused.weight"] & ~before["unused.weight"]).any()
    assert (after["used.weight"] & ~before["used.weight"]).any()
    kept = {name: int(mask.sum()) for name, mask in after.items()}
    assert (kept["frozen.weight"], kept["unused.weight"] + kept["used.weight"]) == (50, 60)  # 0.3 of 200


def test_freezing_a_layer_that_holds_more_than_the_density_is_no_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 10))
    at = methods.attach(model, "granet", total_steps=12, steps_per_epoch=2, density=0.1, update_every=2)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    for step in range(12):
        model[0].requires_grad_(step < 5)
        model.zero_grad()
        F.cross_entropy(model(torch.randn(8, 20)), torch.arange(8) % 10).backward()
        at.step()
        if step == 4:
            kept = at.masks()
    held = [int(mask.sum()) for mask in kept.values()]
    at_4 = 0.1 + 0.4 * (1 - 4 / 8) ** 3  # of all 900 weights: the density at the last update before
    assert at.kept_counts().tolist() == [held[0], pytest.approx(held[1] * 0.1 / at_4, abs=1)]


def test_frozen_layers_that_hold_more_than_the_density_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model[0].weight.requires_grad_(False)
    message = r"granet: density 0\.1 keeps 20 weights, and the frozen layers 0\.weight hold 50: exclude them"
    with pytest.raises(ValueError, match=message):
        methods.attach(model, "granet", total_steps=6, steps_per_epoch=2, density=0.1, include=["0", "1"])


def test_the_share_that_is_replaced_falls_along_a_cosine() -> None:
    model = nn.Linear(100, 10)
    at = methods.attach(model, "granet", total_steps=100, steps_per_epoch=10, density=0.5, update_every=10)
    mask = at.masks()["weight"]
    for step, rate in ((0, 0.5), (50, 0.2525), (100, 0.005)):
        at.context.step = step
        dropped = at.method.dropped(at.context, "weight", mask)
        assert int(dropped.sum()) == math.ceil(rate * 500)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.3, "initial_density": 0.2}, r"initial_density is 0.2: it must lie in \[0.3, 1\]"),
        ({"initial_density": 1.1}, "initial_density is 1.1"),
        ({"prune_until": 0.0}, r"prune_until is 0.0: it must lie in \(0, 1\]"),
        ({"drop_fraction": -0.1}, r"drop_fraction is -0.1: it must lie in \[0, 1\]"),
        ({"final_drop_fraction": 2.0}, r"final_drop_fraction is 2.0: it must lie in \[0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("granet", **values)
