"""AC/DC on eight weights drawn in a comment, its phases, and what is reset."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

import methods
from methods.algorithms.acdc import ACDC


def eight(lr: float, **values: Any) -> tuple[nn.Linear, methods.Attachment, torch.optim.Optimizer]:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.9, -0.8, 0.2], [0.05, 0.3, -0.6, 0.7]]))
    given = {"density": 3 / 8, "warm_up": 0.2, "phase": 0.2, "final": 0.2} | values
    at = methods.attach(model, "acdc", total_steps=10, steps_per_epoch=5, **given)
    optimizer = torch.optim.SGD(at.parameter_groups(), lr=lr, momentum=0.9)
    at.bind(optimizer)
    return model, at, optimizer


def advance(model: nn.Linear, at: methods.Attachment, steps: int) -> None:
    """Steps with the gradient (1, 2, 3, 4) of each row."""
    for _ in range(steps):
        model.zero_grad()
        model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
        at.step()


def test_eight_weights() -> None:
    # weight      0.1  0.9  -0.8  0.2   0.05  0.3  -0.6  0.7
    # compressed       x    x                            x       density 3/8
    model, at, optimizer = eight(lr=0.0)
    advance(model, at, 1)
    assert at.density() == 1
    advance(model, at, 1)
    assert at.masks()["weight"].tolist() == [[False, True, True, False], [False, False, False, True]]
    assert model.weight.tolist() == [pytest.approx([0.0, 0.9, -0.8, 0.0]), pytest.approx([0.0, 0.0, 0.0, 0.7])]
    optimizer.param_groups[0]["lr"] = 0.1
    advance(model, at, 2)  # the last of them decompresses
    assert at.density() == 1
    kept = [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert (model.weight != 0).float().tolist() == kept, "pruned weights start at 0"
    assert not optimizer.state[model.weight]["momentum_buffer"].any()
    before = model.weight.detach().clone()
    advance(model, at, 1)  # all weights move by -lr * gradient, without momentum
    assert (model.weight - before).tolist() == [pytest.approx([-0.1, -0.2, -0.3, -0.4])] * 2


def test_the_phases_are_the_authors_epochs_for_resnet_50() -> None:
    method = ACDC(density=0.1)
    for scale in (1, 7):
        runs = [
            (compressed, len(list(steps)) // scale)
            for compressed, steps in itertools.groupby(
                method.compressed(step, 100 * scale) for step in range(100 * scale)
            )
        ]
        assert runs == [(False, 10), *[(True, 5), (False, 5)] * 6, (True, 5), (False, 10), (True, 15)]


@pytest.mark.parametrize("total_steps", [1, 2, 3, 24, 97])
@pytest.mark.parametrize("values", [{}, {"final": 0.01}, {"warm_up": 0.0, "final": 1.0}, {"phase": 0.9}])
def test_the_last_step_is_compressed(total_steps: int, values: dict[str, float]) -> None:
    assert ACDC(**values).compressed(total_steps - 1, total_steps)


def test_frozen_layers_are_compressed_and_stay_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].weight.requires_grad_(False)
    values = {"density": 0.25, "warm_up": 0.2, "phase": 0.2, "final": 0.2}
    at = methods.attach(model, "acdc", total_steps=10, steps_per_epoch=5, include=["0", "1"], **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    densities = []
    for _ in range(10):
        model.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        at.step()
        densities.append([float(mask.float().mean()) for mask in at.masks().values()])
    assert densities[0] == [1.0, 1.0]
    assert max(frozen for frozen, _ in densities[1:]) < 0.5
    assert densities[4][1] == 1.0
    assert sum(densities[-1]) == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"phase": 0.0}, r"phase is 0.0: it must lie in \(0, 1\]"),
        ({"warm_up": -0.1}, r"warm_up is -0.1: it must lie in \[0, 1\]"),
        ({"final": 0.0}, r"final is 0.0: it must lie in \(0, 1\]"),
        ({"warm_up": 0.6, "final": 0.5}, "warm_up and final are 0.6 and 0.5: their sum must be at most 1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("acdc", **values)
