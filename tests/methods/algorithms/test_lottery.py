"""Lottery tickets on eight weights drawn in a comment, and what is rewound."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

import methods
from methods.algorithms.lottery import Lottery

# place     0    1    2    3    4    5    6    7
# start    1.0  2.0  3.0  4.0  5.0  6.0  7.0  8.0
# gradient 1    1    1    1   -1   -1   10    1       with learning rate 1, for the loss sum(w x)
START = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
INPUT = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 10.0, 1.0]


def eight(**values: Any) -> tuple[nn.Linear, methods.Attachment]:
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([START]))
    options = {"density": 0.25, "prune_fraction": 0.5} | values
    attached = methods.attach(layer, "lottery", total_steps=2, steps_per_epoch=2, **options)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=1.0))
    return layer, attached


def weights_after_each_step(layer: nn.Linear, attached: methods.Attachment) -> list[list[float]]:
    seen = []
    for _ in range(attached.total_steps):
        layer.zero_grad()
        layer(torch.tensor([INPUT])).sum().backward()
        attached.step()
        seen.append(layer.weight.flatten().tolist())
    return seen


def test_the_smallest_are_pruned_and_the_others_rewound_to_step_0() -> None:
    layer, attached = eight()
    assert weights_after_each_step(layer, attached) == [
        [0.0, 1.0, 2.0, 3.0, 6.0, 7.0, -3.0, 7.0],
        # the step gives -1 0 1 2 7 8 -13 6: the half of largest |w| is 4 5 6 7, back at the start
        [0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0],
        [0.0, 0.0, 0.0, 0.0, 6.0, 7.0, -3.0, 7.0],
        # the step gives 7 8 -13 6: 5 and 6 are left, back at the start
        [0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 7.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 7.0, -3.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 8.0, -13.0, 0.0],
    ]


def test_rewinding_to_a_later_step_starts_from_its_values_and_trains_the_rest() -> None:
    layer, attached = eight(rewind_at=0.5)  # step 1 of 2
    assert [phase.steps for phase in attached.phases] == [2, 1, 1]
    assert weights_after_each_step(layer, attached) == [
        [0.0, 1.0, 2.0, 3.0, 6.0, 7.0, -3.0, 7.0],
        [0.0, 0.0, 0.0, 0.0, 6.0, 7.0, -3.0, 7.0],
        # the step gives 7 8 -13 6: 5 and 6, with their values after step 1
        [0.0, 0.0, 0.0, 0.0, 0.0, 7.0, -3.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 8.0, -13.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("density", "fraction", "want"),
    [
        (0.25, 0.5, [0.5, 0.25]),
        (0.2, 0.5, [0.5, 0.25, 0.2]),
        (0.64, 0.2, [0.8, 0.64]),
        (0.05, 0.2, [*(0.8**level for level in range(1, 14)), 0.05]),
        (0.9, 0.2, [0.9]),
        (1.0, 0.2, []),
    ],
)
def test_levels_prune_the_fraction_and_the_last_one_to_the_density(
    density: float, fraction: float, want: list[float]
) -> None:
    method = Lottery(density=density, prune_fraction=fraction)
    assert method.densities() == pytest.approx(want)
    names = [phase.name for phase in method.phases(100)]
    assert names == [f"level {level}" for level in range(len(want) + 1)]


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(F.relu(self.norm(self.first(x))))
        return logits


def test_biases_and_normalisation_are_rewound_with_the_weights_and_a_resume_remembers_them() -> None:
    torch.manual_seed(0)
    model = Normalised()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    attached = methods.attach(model, "lottery", total_steps=5, steps_per_epoch=5, density=0.4, prune_fraction=0.4)
    bind(attached)
    train(model, attached, 3)
    file = io.BytesIO()
    torch.save({"attached": attached.state_dict(), "model": model.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model = Normalised()  # other weights
    attached = methods.attach(model, "lottery", total_steps=5, steps_per_epoch=5, density=0.4, prune_fraction=0.4)
    attached.load_state_dict(saved["attached"])
    model.load_state_dict(saved["model"])
    bind(attached)
    train(model, attached, 2)
    assert attached.phase.name == "level 1"
    masks = attached.masks()
    for name, value in model.state_dict().items():
        assert torch.equal(value, first[name] * masks[name] if name in masks else first[name]), name


@pytest.mark.parametrize("bound_before", [False, True])
def test_weights_that_are_loaded_before_bind_are_rewound_to(bound_before: bool) -> None:
    torch.manual_seed(0)
    other, model = Normalised(), Normalised()
    other(torch.randn(16, 20))
    attached = methods.attach(model, "lottery", total_steps=5, steps_per_epoch=5, density=0.4, prune_fraction=0.4)
    if bound_before:
        bind(attached)
    model.load_state_dict(other.state_dict())
    bind(attached)
    train(model, attached, 5)
    assert attached.phase.name == "level 1"
    masks, want = attached.masks(), other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, want[name] * masks[name] if name in masks else want[name]), name


def test_weights_that_a_step_writes_before_its_update_are_not_rewound_to() -> None:
    """SAM moves the weights, computes the gradients there, and moves them back in its second step."""
    layer, attached = eight()
    for _ in range(2):
        layer.zero_grad()
        with torch.no_grad():
            layer.weight.add_(0.5)
        layer(torch.tensor([INPUT])).sum().backward()
        attached.step()
    assert layer.weight.flatten().tolist() == [0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0]


def test_a_state_that_was_saved_before_bind_has_its_values() -> None:
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([START]))
    attached = methods.attach(layer, "lottery", total_steps=2, steps_per_epoch=2, density=0.25, prune_fraction=0.5)
    states = copy.deepcopy((attached.state_dict(), layer.state_dict()))
    for _ in range(2):
        attached.load_state_dict(states[0])
        layer.load_state_dict(states[1])
        if attached.context.optimizer is None:
            attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=1.0))
        assert weights_after_each_step(layer, attached)[1] == [0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0]


def test_a_state_of_step_0_with_other_values_than_those_of_bind_can_be_loaded() -> None:
    torch.manual_seed(0)
    layer, attached = eight()
    state = attached.state_dict()
    assert torch.equal(state["own"]["start"]["weight"], torch.tensor([START]))
    state["own"]["start"] = {"weight": torch.zeros(1, 8)}  # of a process whose weights DDP replaced
    attached.load_state_dict(state)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=1.0))
    assert weights_after_each_step(layer, attached)[1] == [0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0]


def _train_in_two(rank: int) -> list[Any]:
    dist.init_process_group("gloo")
    torch.manual_seed(rank)
    model = Normalised()
    attached = methods.attach(model, "lottery", total_steps=3, steps_per_epoch=3, density=0.4, prune_fraction=0.4)
    network = DistributedDataParallel(model)
    bind(attached)
    train(network, attached, attached.total_steps)
    return [p.tolist() for p in model.parameters()]


@pytest.mark.slow
def test_processes_that_were_initialised_differently_are_rewound_to_the_same_weights() -> None:
    first, second = in_two_processes(_train_in_two)
    assert first == second


def bind(attached: methods.Attachment) -> None:
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9))


def train(model: nn.Module, attached: methods.Attachment, steps: int) -> None:
    for _ in range(steps):
        model.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 4).backward()
        attached.step()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"prune_fraction": 1.0}, r"prune_fraction is 1.0: it must lie in \(0, 1\)"),
        ({"rewind_at": 1.0}, r"rewind_at is 1.0: it must lie in \[0, 1\)"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("lottery", **values)
