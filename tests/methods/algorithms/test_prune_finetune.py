"""Pruning and fine-tuning on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.prune_finetune import relative_magnitude

# two layers of four weights
# first    0.1  0.2 -0.3 -0.4     mean -0.1, squares 0.04 0.09 0.04 0.09: sigma = sqrt(0.065) = 0.255
# |w|/s    0.39 0.78 1.18 1.57
# second   1    2   -3   -4       ten times as large: the same relative magnitudes
FIRST = [0.1, 0.2, -0.3, -0.4]
SECOND = [1.0, 2.0, -3.0, -4.0]


def two_layers(first: list[float] = FIRST, second: list[float] = SECOND, **values: Any) -> tuple[Any, Any]:
    model = nn.ModuleList([nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)])
    with torch.no_grad():
        for layer, weights in zip(model, (first, second), strict=True):
            layer.weight.copy_(torch.tensor([weights]))
    attached = methods.attach(model, "prune_finetune", total_steps=3, steps_per_epoch=3, **values)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    return model, attached


def kept(attached: methods.Attachment) -> list[list[int]]:
    return [mask.flatten().nonzero().flatten().tolist() for mask in attached.masks().values()]


def test_magnitudes_are_relative_to_the_deviation_of_the_layers_kept_weights() -> None:
    everything = torch.ones(4, dtype=torch.bool)
    want = [size / math.sqrt(0.065) for size in (0.1, 0.2, 0.3, 0.4)]
    assert relative_magnitude(torch.tensor(FIRST), everything).tolist() == pytest.approx(want)
    assert relative_magnitude(torch.tensor(SECOND), everything).tolist() == pytest.approx(want)
    kept_ones = torch.tensor([True, True, False, False])  # 0.1 and 0.2: sigma 0.05
    assert relative_magnitude(torch.tensor(FIRST), kept_ones)[:2].tolist() == pytest.approx([2.0, 4.0])


def test_layers_of_any_scale_are_pruned_alike_after_the_first_training() -> None:
    # 4 of 8 by |w| / sigma: the two largest of each layer, although |w| is larger in all of the second
    _, attached = two_layers(density=0.5)
    for _ in range(2):
        attached.step()
        assert attached.density() == 1
    assert attached.step()
    assert (attached.phase.name, attached.phase.lr, attached.phase.lr_scale) == ("round 1", "restart", 0.1)
    assert kept(attached) == [[2, 3], [2, 3]]


def test_a_layer_with_more_large_weights_keeps_more() -> None:
    # first     0    0    0   -8: mean -2, sigma = sqrt(12) = 3.46; |w| / sigma 0 0 0 2.3
    # second   -1    1   -1    1: sigma 1; 1 1 1 1: three of them are kept, the earlier ones of equals
    _, attached = two_layers([0.0, 0.0, 0.0, -8.0], [-1.0, 1.0, -1.0, 1.0], density=0.5)
    for _ in range(3):
        attached.step()
    assert kept(attached) == [[3], [0, 1, 2]]


def test_several_rounds_prune_the_same_share_of_what_is_left_each_time() -> None:
    # density 1/4 in two rounds: 8 * (1/4)^(1/2) = 4 of 8, then 2 of 8
    # after round 1 first keeps -0.3 -0.4 and second -3 -4: sigma 0.05 and 0.5, |w| / sigma 6 and 8 in both
    _, attached = two_layers(density=0.25, rounds=2, finetuning=2 / 3)
    assert [phase.steps for phase in attached.phases] == [3, 2, 2]
    counts = []
    for _ in range(7):
        attached.step()
        counts.append(attached.kept_counts().tolist())
    assert counts == [[4, 4]] * 2 + [[2, 2]] * 2 + [[1, 1]] * 3
    assert kept(attached) == [[3], [3]]


def network(**values: Any) -> tuple[nn.Sequential, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))
    options = {"density": 0.1} | values
    return model, methods.attach(model, "prune_finetune", total_steps=20, steps_per_epoch=10, **options)


def test_weights_that_are_left_go_on_from_their_values_and_no_weight_returns() -> None:
    model, attached = network(rounds=3)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    masks, generator = attached.masks(), torch.Generator().manual_seed(1)
    target = torch.randn(20, 5, generator=generator)
    for _ in range(attached.total_steps):
        x = torch.randn(16, 20, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), (x @ target).argmax(1)).backward()
        optimizer_saw: list[dict[str, Tensor]] = []
        handle = optimizer.register_step_post_hook(
            lambda *_, seen=optimizer_saw: seen.append({n: w.detach().clone() for n, w in attached.weights().items()})
        )
        began = attached.step()
        handle.remove()
        if began:
            for name, mask in attached.masks().items():
                assert torch.equal(attached.weights()[name], optimizer_saw[0][name] * mask)
                assert not (mask & ~masks[name]).any()
            masks = attached.masks()
            optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.01, momentum=0.9)
            attached.bind(optimizer)
    assert attached.total_steps == 80
    assert sum(attached.kept_counts().tolist()) == round(0.1 * 2150)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"rounds": 0}, "rounds is 0: it must be a whole number of 1 to 1000"),
        ({"finetuning": 0.0}, "finetuning is 0.0: it must be above 0"),
        ({"lr_scale": -1.0}, "lr_scale is -1.0: it must be above 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("prune_finetune", **values)
