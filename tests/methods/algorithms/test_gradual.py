"""Gradual pruning on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from methods.algorithms.gradual import Gradual
from methods.budgets import allocate

# place     0    1    2    3    4    5    6    7
WEIGHTS = [0.9, -0.1, 0.5, -0.2, 0.8, -0.4, 0.3, 0.05]
# pruned in this order: 7 1 3 6 5 2 4 0


def eight(**values: Any) -> tuple[nn.Linear, methods.Attachment]:
    """Eight weights, to be pruned to 2 of 8 after steps 2, 4, 6 and 8 of 12."""
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([WEIGHTS]))
    options = {"density": 0.25, "starts_at": 2 / 12, "stops_at": 8 / 12, "update_every": 2} | values
    attached = methods.attach(layer, "gradual", total_steps=12, steps_per_epoch=6, **options)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    return layer, attached


def kept_after_each_step(layer: nn.Linear, attached: methods.Attachment) -> list[list[int]]:
    found = []
    for _ in range(12):
        layer(torch.ones(1, 8)).sum().backward()
        attached.step()
        found.append(attached.masks()["weight"].flatten().nonzero().flatten().tolist())
    return found


def test_the_smallest_are_pruned_to_the_cubic_of_equation_1() -> None:
    # 2 + 6 (1 - p)^3 at p = 0, 1/3, 2/3, 1: 8, 2 + 6 * 8/27 = 3.78, 2 + 6 / 27 = 2.22, 2
    all_eight, four, two = list(range(8)), [0, 2, 4, 5], [0, 4]
    layer, attached = eight()
    assert attached.density() == 1
    assert kept_after_each_step(layer, attached) == [all_eight] * 3 + [four] * 2 + [two] * 7
    assert layer.weight.flatten().tolist() == pytest.approx([0.9, 0, 0, 0, 0.8, 0, 0, 0])


def test_the_last_update_does_not_wait_for_a_full_period() -> None:
    # periods of 4 from step 2: 2, 6, then the end, 8. 2 + 6 (1/3)^3 = 2.2 after 6
    layer, attached = eight(update_every=4)
    counts = [len(places) for places in kept_after_each_step(layer, attached)]
    assert counts == [8] * 5 + [2] * 7
    layer, attached = eight(update_every=5)  # 2, 7, the end: 2 + 6 (1/6)^3 = 2.03
    assert [len(places) for places in kept_after_each_step(layer, attached)] == [8] * 6 + [2] * 6


def test_the_initial_density_is_there_from_the_start() -> None:
    layer, attached = eight(initial_density=0.75)  # 6 of 8, then 2 + 4 * 8 / 27 = 3.2, 2 + 4 / 27 = 2.1, 2
    assert attached.kept_counts().tolist() == [6]
    assert [len(places) for places in kept_after_each_step(layer, attached)] == [6] * 3 + [3] * 2 + [2] * 7


def network(**values: Any) -> tuple[nn.Sequential, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))
    options = {"density": 0.1, "update_every": 3} | values
    return model, methods.attach(model, "gradual", total_steps=60, steps_per_epoch=10, **options)


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_no_weight_returns_and_every_layer_ends_with_its_exact_count(allocation: str) -> None:
    model, attached = network(allocation=allocation)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    before, totals = attached.masks(), []
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 5).backward()
        attached.step()
        after = attached.masks()
        assert not any(bool((after[name] & ~before[name]).any()) for name in after)
        before = after
        totals.append(sum(attached.kept_counts().tolist()))
    shapes = {name: tuple(mask.shape) for name, mask in before.items()}
    want = allocate(shapes, density=0.1, allocation=allocation)
    assert {name: int(mask.sum()) for name, mask in before.items()} == want
    assert totals[5] == 2150  # t_0: equation 1 gives s_i
    assert totals[44] == totals[59] == 215
    assert len(set(totals)) > 5


def test_counts_never_rise_however_small_the_layers() -> None:
    """Rounded counts of an allocation may rise by one where the density falls; those of a layer may not."""
    model = nn.Sequential(*(nn.Linear(n, n + 1) for n in range(3, 9)))
    attached = methods.attach(model, "gradual", total_steps=97, steps_per_epoch=10, density=0.2)
    method, ctx = attached.method, attached.context
    assert isinstance(method, Gradual)
    counts = []
    for step in range(98):
        ctx.step = step
        counts.append(list(method.counts(ctx).values()))
    for layer in zip(*counts, strict=True):
        assert list(layer) == sorted(layer, reverse=True)


def test_masks_that_are_given_are_pruned_further() -> None:
    layer, attached = eight()
    attached.set_masks({"weight": torch.tensor([[True] * 4 + [False] * 4])})
    assert kept_after_each_step(layer, attached)[-1] == [0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"initial_density": 0.01}, "initial_density is 0.01: it must be density, 0.05, or more"),
        ({"starts_at": 0.9}, "starts_at is 0.9: it must be stops_at, 0.75, or less"),
        ({"starts_at": -0.1}, r"starts_at is -0.1: it must lie in \[0, 1\]"),
        ({"stops_at": 1.1}, r"stops_at is 1.1: it must lie in \(0, 1\]"),
        ({"allocation": "all"}, "allocation is 'all'; valid: er, erk, uniform"),
        ({"update_every": 0}, "duration 0 is not"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("gradual", **values)


def test_a_density_that_leaves_a_layer_without_a_weight_is_refused_when_attached() -> None:
    with pytest.raises(ValueError, match=r"^gradual: .*keeps 2 weights, fewer than the 3 layers"):
        network(density=0.001)


@pytest.mark.parametrize("values", [{"starts_at": 0.5, "stops_at": 0.5}, {"starts_at": 0.0, "stops_at": 0.01}])
def test_a_range_of_one_step_prunes_to_the_density_in_that_step(values: dict[str, float]) -> None:
    kept = kept_after_each_step(*eight(**values))
    first = max(1, round(values["stops_at"] * 12))
    assert [len(places) for places in kept] == [8] * (first - 1) + [2] * (13 - first)
