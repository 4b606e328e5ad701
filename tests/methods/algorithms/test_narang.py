"""The rising threshold on eight weights drawn in a comment, and its slopes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import methods
from methods.algorithms.narang import rise


def test_eight_weights() -> None:
    # weight    0.1  0.9  -0.8  0.2   0.05  0.3  -0.6  0.7     density 3/8: q = 0.7
    # steps 20: start 2, ramp 10, end 18; theta = 2 q / (2 * 8 + 3 * 8) = 0.05 q a step, phi = 0.075 q
    # step 4    epsilon = 3 * 0.05 q = 0.105                   prunes 0.1, 0.05
    # step 8    epsilon = 7 * 0.05 q = 0.245                   prunes 0.2
    # step 12   epsilon = (9 * 0.05 + 3 * 0.075) q = 0.4725    prunes 0.3
    # step 16   epsilon = (9 * 0.05 + 7 * 0.075) q = 0.6825    prunes -0.6
    # step 18   the three largest stay: 0.9, -0.8, 0.7
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.9, -0.8, 0.2], [0.05, 0.3, -0.6, 0.7]]))
    values: dict[str, Any] = {"density": 3 / 8, "start": 0.1, "ramp": 0.5, "end": 0.9, "update_every": 4}
    at = methods.attach(model, "narang", total_steps=20, steps_per_epoch=5, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    kept = []
    for _ in range(20):
        model(torch.ones(1, 4)).sum().backward()
        at.step()
        kept.append(int(at.masks()["weight"].sum()))
    assert kept == [8] * 3 + [6] * 4 + [5] * 4 + [4] * 4 + [3] * 5
    assert model.weight.tolist() == [pytest.approx([0.0, 0.9, -0.8, 0.0]), pytest.approx([0.0, 0.0, 0.0, 0.7])]


@pytest.mark.parametrize(
    ("step", "want"),
    [
        (200, 101 * 2 / 2300),  # eq. 1: theta = 2 q freq / (2 * 400 + 3 * 500), epsilon = theta (t - start + 1) / freq
        (499, 400 * 2 / 2300),
        (500, (401 * 2 + 3) / 2300),
        (900, (401 * 2 + 401 * 3) / 2300),
        (1000, 1.0),
    ],
)
def test_the_slopes_are_those_of_equation_1(step: int, want: float) -> None:
    assert rise(step, start=100, ramp=500, end=1000, slope=1.5) == pytest.approx(want)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0, 10.0])
def test_any_ramp_slope_ends_at_q(slope: float) -> None:
    values = [rise(step, start=0, ramp=300, end=1000, slope=slope) for step in range(1001)]
    assert values == sorted(values)
    assert values[999] == pytest.approx(1.0, abs=0.01)
    assert values[-1] == 1.0


def test_pruned_weights_stay_pruned_and_each_layer_reaches_its_count() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, batch_first=True)
    values: dict[str, Any] = {"density": 0.2, "allocation": "uniform", "update_every": 2}
    at = methods.attach(lstm, "narang", total_steps=40, steps_per_epoch=10, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.5, momentum=0.9))
    masks = at.masks()
    for _ in range(40):
        lstm.zero_grad()
        lstm(torch.randn(4, 3, 6))[0].square().sum().backward()
        at.step()
        assert not any(bool((mask & ~masks[name]).any()) for name, mask in at.masks().items())
        masks = at.masks()
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"weight_ih_l0": 24, "weight_hh_l0": 20}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": 0.5, "ramp": 0.4}, "start, ramp and end are 0.5, 0.4 and 0.5: they must rise from 0 to at most 1"),
        ({"end": 1.5}, "start, ramp and end are 0.05, 0.25 and 1.5"),
        ({"start": 0.0, "ramp": 0.0, "end": 0.0}, "start, ramp and end are 0.0, 0.0 and 0.0"),
        ({"ramp_slope": 0.0}, "ramp_slope is 0.0: it must be above 0"),
        ({"density": 1.1}, r"density is 1.1: it must lie in \(0, 1\]"),
        ({"allocation": "some"}, "allocation is 'some'; valid: "),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("narang", **values)


def test_a_density_that_leaves_a_layer_empty_fails_at_attach() -> None:
    with pytest.raises(ValueError, match=r"narang: density 0\.01 keeps 0 weights, fewer than the 1 layers"):
        methods.attach(nn.Linear(4, 2), "narang", total_steps=4, steps_per_epoch=2, density=0.01)
