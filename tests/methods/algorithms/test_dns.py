"""Dynamic network surgery on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.dns import DNS, threshold

# place     0    1     2    3    4    5     6    7
# weight   0.1 -0.1   0.1  0.1  0.5 -0.5   0.5  0.5     mean |w| 0.3, deviation 0.2
WEIGHTS = [0.1, -0.1, 0.1, 0.1, 0.5, -0.5, 0.5, 0.5]
# with c = 0.5, T = 0.3 + 0.5 * 0.2 = 0.4: pruned at 0.36 and below, spliced above 0.44


def eight(**values: Any) -> tuple[nn.Linear, methods.Attachment]:
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([WEIGHTS]))
    options = {"threshold_scale": 0.5, "pretraining": 0.0, "frequency_decay": 0.0} | values
    attached = methods.attach(layer, "dns", total_steps=10, steps_per_epoch=5, **options)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=1.0))
    return layer, attached


def step(layer: nn.Linear, attached: methods.Attachment, move: list[float]) -> None:
    """One step that adds `move` to the weights: the gradient of sum(w x) is x for all of them."""
    layer.zero_grad()
    layer(-torch.tensor([move])).sum().backward()
    attached.step()


def kept(attached: methods.Attachment) -> list[int]:
    return attached.masks()["weight"].flatten().nonzero().flatten().tolist()


def test_the_threshold_is_mean_and_scaled_deviation_of_weights_that_are_not_zero() -> None:
    assert threshold(torch.tensor([WEIGHTS]), 0.5) == pytest.approx(0.4)
    assert threshold(torch.tensor([*WEIGHTS, 0.0, 0.0]), 0.5) == pytest.approx(0.4)
    assert threshold(torch.tensor(WEIGHTS), -2.0) == 0.0  # 0.3 - 0.4 is below 0
    assert threshold(torch.zeros(4), 1.0) == 0.0


def test_weights_are_pruned_and_spliced_outside_of_the_band_only() -> None:
    layer, attached = eight()
    assert kept(attached) == [4, 5, 6, 7]
    # pruned:  0.1 -> 0.42 in the band, -0.1 -> -0.45 above it, 0.1 -> 0.1, 0.1 -> 0.37 in the band
    # kept:    0.5 -> 0.38 in the band, -0.5 -> -0.35 below it, 0.5 -> 0.5, 0.5 -> 0.43 in the band
    step(layer, attached, [0.32, -0.35, 0.0, 0.27, -0.12, 0.15, 0.0, -0.07])
    assert kept(attached) == [1, 4, 6, 7]
    # all of W was updated, and the layer computes with W * T
    values = [0.42, -0.45, 0.1, 0.37, 0.38, -0.35, 0.5, 0.43]
    assert attached.weights()["weight"].flatten().tolist() == pytest.approx(values)
    assert layer(torch.ones(1, 8)).item() == pytest.approx(-0.45 + 0.38 + 0.5 + 0.43)
    step(layer, attached, [0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # 0.42 -> 0.45: spliced with its value
    assert kept(attached) == [0, 1, 4, 6, 7]
    methods.finalize(layer)
    assert layer.weight.flatten().tolist() == pytest.approx([0.45, -0.45, 0, 0, 0.38, 0, 0.5, 0.43])


def test_thresholds_stay_those_from_the_start_of_the_surgery() -> None:
    layer, attached = eight()
    step(layer, attached, [9.0, 0, 0, 0, 0, 0, 0, -0.13])  # 0.5 - 0.13 = 0.37, in the band that there was
    assert kept(attached) == [0, 4, 5, 6, 7]


def test_no_mask_moves_after_the_end_of_the_surgery() -> None:
    layer, attached = eight(stops_at=0.2)  # 2 of 10 steps: the last update is after the first step
    step(layer, attached, [0.0] * 8)
    step(layer, attached, [1.0] * 8)
    assert kept(attached) == [4, 5, 6, 7]
    layer, attached = eight(stops_at=0.3)
    step(layer, attached, [0.0] * 8)
    step(layer, attached, [1.0] * 8)
    assert len(kept(attached)) == 8


@pytest.mark.parametrize(
    ("decay", "power", "t", "want"), [(1e-4, 1, 0, 1), (1e-4, 1, 10_000, 0.5), (0.5, 2, 2, 0.25), (3.0, 0, 9, 1)]
)
def test_the_probability_of_an_update_falls_with_the_steps(decay: float, power: float, t: int, want: float) -> None:
    method = DNS(frequency_decay=decay, frequency_power=power)
    assert method.probability(t) == pytest.approx(want)


def test_layers_are_drawn_one_by_one_with_that_probability() -> None:
    """300 layers at step 1 of the surgery with probability 1 / 4: about 75 are set."""
    model = nn.ModuleList([nn.Linear(8, 1, bias=False) for _ in range(300)])
    attached = methods.attach(
        model, "dns", total_steps=9, steps_per_epoch=3, pretraining=0.0, threshold_scale=0.0, frequency_decay=3.0
    )
    before = attached.masks()
    with torch.no_grad():
        for weight in attached.weights().values():
            weight.fill_(1e6)
    attached.context.step = 1
    attached.method.after_step(attached.context)
    changed = sum(not torch.equal(mask, before[name]) for name, mask in attached.masks().items())
    assert not any(bool(mask.all()) for mask in before.values())
    assert 50 < changed < 100


def network(**values: Any) -> tuple[nn.Sequential, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))
    return model, methods.attach(model, "dns", total_steps=20, steps_per_epoch=10, **values)


def train(model: nn.Module, attached: methods.Attachment) -> list[tuple[str, float]]:
    """The phase and the density after each step."""
    optimizer, seen = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9), []
    attached.bind(optimizer)
    for _ in range(attached.total_steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 5).backward()
        if attached.step():
            assert attached.phase.new_optimizer
            assert attached.phase.lr == "restart"
            optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
            attached.bind(optimizer)
        seen.append((attached.phase.name, attached.density()))
    return seen


def test_a_dense_training_comes_first_and_the_surgery_lasts_as_long() -> None:
    model, attached = network(threshold_scale=1.0)
    seen = train(model, attached)
    assert attached.total_steps == len(seen) == 40
    assert seen[:19] == [("train", 1.0)] * 19
    assert all(name == "surgery" and 0 < density < 0.5 for name, density in seen[19:])


def test_a_larger_scale_prunes_more_and_each_layer_may_have_its_own() -> None:
    densities = []
    for scale in (0.5, 1.0, 2.0):
        model, attached = network(threshold_scale=scale, pretraining=0.5)
        densities.append(train(model, attached)[-1][1])
    assert densities == sorted(densities, reverse=True)
    model, attached = network(threshold_scale=(9.0, 0.0, -9.0), pretraining=0.5)
    train(model, attached)
    shares = {name: float(mask.float().mean()) for name, mask in attached.masks().items()}
    assert shares["0.weight"] == 0
    assert 0.2 < shares["2.weight"] < 0.8
    assert shares["4.weight"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold_scale": math.nan}, "threshold_scale is nan: it must be finite"),
        ({"threshold_scale": (1.0, math.inf)}, r"threshold_scale is \(1.0, inf\): it must be finite"),
        ({"frequency_decay": -1.0}, "frequency_decay is -1.0: it must be 0 or more"),
        ({"pretraining": -0.5}, "pretraining is -0.5: it must be 0 or more"),
        ({"stops_at": 2.0}, r"stops_at is 2.0: it must lie in \[0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("dns", **values)


def test_scales_of_another_number_of_layers_are_refused_and_leave_the_model_as_it_was() -> None:
    layer = nn.Linear(8, 1)
    before: Tensor = layer.weight.detach().clone()
    with pytest.raises(ValueError, match="dns: threshold_scale has 2 numbers for 1 layers"):
        methods.attach(layer, "dns", total_steps=4, steps_per_epoch=2, threshold_scale=(1.0, 2.0))
    assert type(layer) is nn.Linear
    assert torch.equal(layer.weight, before)
