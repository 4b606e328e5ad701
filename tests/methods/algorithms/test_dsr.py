"""DSR on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from methods.algorithms.dsr import DSR
from methods.attachment import Attachment

# two layers of eight places; x is kept, . is not; H = 0.5
# first   0.9  0.4 -0.1  0.7   .    .    .    .     drops 0.4 and -0.1: two survive
# second -0.6  .    .    .     .    .    .    .     drops nothing:      one survives
FIRST = [0.9, 0.4, -0.1, 0.7, 0, 0, 0, 0]
SECOND = [-0.6, 0, 0, 0, 0, 0, 0, 0]


def attached(first: list[float] = FIRST, second: list[float] = SECOND, **values: Any) -> Attachment:
    model = nn.Sequential(nn.Linear(8, 1), nn.Linear(8, 1))
    made = methods.attach(model, "dsr", total_steps=100, steps_per_epoch=10, density=0.3, **values)
    made.set_masks({f"{i}.weight": torch.tensor([w]) != 0 for i, w in enumerate((first, second))})
    with torch.no_grad():
        for layer, row in zip(model, (first, second), strict=True):
            layer.weight.copy_(torch.tensor([row]))
            layer.weight.grad = torch.zeros_like(layer.weight)  # a layer without a gradient takes no part
    made.bind(torch.optim.SGD(made.parameter_groups(), lr=0.1, momentum=0.9))
    return made


def updated(made: Attachment) -> tuple[list[list[bool]], DSR]:
    method = made.method
    assert isinstance(method, DSR)
    method.update(made.context)
    return [mask.flatten().tolist() for mask in made.masks().values()], method


def test_weights_below_the_global_threshold_move_in_proportion_to_the_survivors() -> None:
    (first, second), _ = updated(attached(initial_threshold=0.5))
    # 2 dropped; shares 2/3 and 1/3 of 2: 1.33 and 0.67 round to 1 and 1
    assert first[:4] == [True, False, False, True]
    assert [sum(first), sum(second)] == [3, 2]


def test_positions_just_dropped_are_not_grown_again() -> None:
    for seed in range(20):
        (first, _), _ = updated(seeded(seed))
        assert first[1:3] == [False, False]


def seeded(seed: int) -> Attachment:
    made = attached(initial_threshold=0.5)
    made.context.generator.manual_seed(seed)
    return made


@pytest.mark.parametrize(
    ("fraction", "expected"),
    # 2 of 5 kept are dropped; the target is fraction * 5
    [(0.4, 0.5), (0.2, 0.25), (0.8, 1.0)],
)
def test_the_threshold_halves_when_too_many_drop_and_doubles_when_too_few(fraction: float, expected: float) -> None:
    _, method = updated(attached(initial_threshold=0.5, prune_fraction=fraction))
    assert method.state_dict() == {"threshold": expected}


def test_a_layer_keeps_its_largest_weight() -> None:
    (first, second), _ = updated(attached(initial_threshold=2.0))
    assert first[0]
    assert second[0]
    assert sum(first) + sum(second) == 5


def test_what_a_layer_has_no_room_for_goes_to_the_others() -> None:
    full = [0.9, 0.8, 0.7, 0.6, 0.9, 0.8, 0.7, 0.6]
    (first, second), _ = updated(attached(full, FIRST, initial_threshold=0.5))
    assert [sum(first), sum(second)] == [8, 4]


def test_grown_weights_start_at_zero_and_without_momentum() -> None:
    made = attached(initial_threshold=0.5)
    optimizer = made.context.optimizer
    assert optimizer is not None
    for weight in made.context.weights.values():
        optimizer.state[weight.parameter]["momentum_buffer"] = torch.ones_like(weight.parameter)
    before = made.masks()
    updated(made)
    for name, mask in made.masks().items():
        parameter = made.context.weights[name].parameter
        grown = mask & ~before[name]
        assert grown.any()
        assert (parameter[grown] == 0).all()
        assert (optimizer.state[parameter]["momentum_buffer"][grown] == 0).all()
        assert (optimizer.state[parameter]["momentum_buffer"][~grown] == 1).all()


def test_the_first_move_of_a_grown_weight_is_its_own_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Linear(20, 30)
    made = methods.attach(
        model, "dsr", total_steps=100, steps_per_epoch=10, density=0.2, update_every=10, initial_threshold=0.05
    )
    optimizer = torch.optim.SGD(made.parameter_groups(), lr=0.1, momentum=0.9)
    made.bind(optimizer)
    inputs, labels = torch.randn(16, 20), torch.randint(30, (16,))
    before = made.masks()["weight"]
    for _ in range(11):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        made.step()
    grown = made.masks()["weight"] & ~before
    assert grown.any()
    assert model.weight.grad is not None
    assert torch.equal(model.weight[grown], -0.1 * model.weight.grad[grown])


def test_a_drop_fraction_is_no_hyperparameter() -> None:
    with pytest.raises(ValueError, match="drop_fraction"):
        methods.create("dsr", drop_fraction=0.2)
    with pytest.raises(ValueError, match="duration '1 week' is not"):
        methods.create("dsr", update_every="1 week")


def test_the_period_doubles_at_the_published_points_and_updates_end_before_the_training() -> None:
    made = attached(update_every=1)
    method, ctx = made.method, made.context
    assert isinstance(method, DSR)
    due = []
    for ctx.step in range(1, 101):
        if method.due(ctx):
            due.append(ctx.step)
    # of 100 steps: each to 12.5 %, each second to 40 %, each fourth to 70 %, each eighth to 95 %
    assert due == [*range(1, 13), *range(14, 40, 2), *range(40, 70, 4), *range(72, 95, 8)]


def test_dsr_keeps_the_total_density_while_layers_change() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5))
    made = methods.attach(
        model, "dsr", total_steps=60, steps_per_epoch=10, density=0.2, update_every=3, initial_threshold=0.05
    )
    optimizer = torch.optim.SGD(made.parameter_groups(), lr=0.1, momentum=0.9)
    made.bind(optimizer)
    start = made.kept_counts().tolist()
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.randint(5, (16,))).backward()
        made.step()
        assert int(made.kept_counts().sum()) == round(0.2 * 2150)
    assert made.kept_counts().tolist() != start
