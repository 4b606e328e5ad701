"""RigL on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods

# place    0    1    2    3    4    5    6    7
# weight  0.9 -0.1  0.5 -0.2   .    .    .    .     keeps 4
# dL/dw    1    7    2    3    4   -9    5    6     the input, for the loss sum(w x)
WEIGHTS = [0.9, -0.1, 0.5, -0.2, 0.0, 0.0, 0.0, 0.0]
INPUT = [1.0, 7.0, 2.0, 3.0, 4.0, -9.0, 5.0, 6.0]


def eight(step: int, **values: Any) -> tuple[nn.Linear, methods.Attachment, torch.optim.Optimizer]:
    """Eight weights with momentum 1 everywhere, before the step after `step` completed ones."""
    layer = nn.Linear(8, 1, bias=False)
    options = {"density": 0.5, "update_every": 10, "drop_fraction": 1.0, "stops_at": 0.5} | values
    attached = methods.attach(layer, "rigl", total_steps=200, steps_per_epoch=10, **options)
    attached.set_masks({"weight": torch.tensor([WEIGHTS]) != 0})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([WEIGHTS]))
    optimizer.state[layer.weight]["momentum_buffer"] = torch.ones(1, 8)
    attached.bind(optimizer)
    state = attached.state_dict()
    attached.load_state_dict(state | {"step": step})
    return layer, attached, optimizer


def step(layer: nn.Linear, attached: methods.Attachment, x: list[float] = INPUT) -> Tensor:
    """One step on the loss sum(w x); the gradients that it saw."""
    layer.weight.grad = None
    layer(torch.tensor([x])).sum().backward()
    assert layer.weight.grad is not None
    attached.step()
    return layer.weight.grad


def kept(attached: methods.Attachment) -> list[int]:
    return attached.masks()["weight"].flatten().nonzero().flatten().tolist()


def test_half_the_smallest_make_room_for_the_largest_gradients() -> None:
    # t = 50 of T_end = 0.5 * 200 = 100: f = 1 / 2 * (1 + cos(pi / 2)) = 1/2 of 4 = 2 are dropped: places 1 and 3.
    # not kept now: 1 3 4 5 6 7 with |gradient| 7 3 4 9 5 6: places 5 and 1 grow
    layer, attached, optimizer = eight(50)
    step(layer, attached)
    assert kept(attached) == [0, 1, 2, 5]
    # place 1 keeps -0.1 and its momentum; place 5 starts at 0 with momentum 0; nobody took a step of the optimizer
    assert layer.weight.flatten().tolist() == pytest.approx([0.9, -0.1, 0.5, 0, 0, 0, 0, 0])
    assert optimizer.state[layer.weight]["momentum_buffer"].flatten().tolist() == [1, 1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("t", "fraction", "dropped"),
    [
        (0, None, 0),  # no update before a full period
        (10, 1.0, 3),  # 1 / 2 * (1 + cos(pi / 10)) = 0.976 of 4: floor(3.9)
        (10, 0.3, 1),  # 0.15 * 1.951 = 0.293 of 4: floor(1.17)
        (90, 1.0, 0),  # 1 / 2 * (1 + cos(9 pi / 10)) = 0.024 of 4: an update, of nothing
        (100, 1.0, None),  # T_end
        (55, 1.0, None),  # no multiple of the period
    ],
)
def test_the_drop_fraction_falls_along_a_cosine(t: int, fraction: float | None, dropped: int | None) -> None:
    layer, attached, _ = eight(t, drop_fraction=fraction or 1.0)
    updates = fraction is not None and dropped is not None
    step(layer, attached, [0.0] * 4 + [4.0, -9.0, 5.0, 6.0])  # every dropped weight moves to the back
    assert len(set(kept(attached)) & {0, 1, 2, 3}) == 4 - (dropped or 0)
    stepped = layer.weight.flatten()[0].item() != pytest.approx(0.9)
    assert stepped != updates  # the optimizer's momentum moves the first weight in every other step


def test_gradients_of_pruned_weights_are_there_in_updates_only() -> None:
    layer, attached, _ = eight(49)
    assert not step(layer, attached)[0, 4:].any()
    assert attached.gradient_counts().tolist() == [8]
    assert step(layer, attached)[0, 4:].all()
    assert attached.gradient_counts().tolist() == [4]
    assert int((step(layer, attached) != 0).sum()) == 4


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_gradients_that_are_not_finite_move_no_mask(bad: float) -> None:
    """As under a gradient scaler, which skips such a step: no step is counted, and the next one updates."""
    layer, attached, _ = eight(50)
    layer(torch.tensor([[bad, *INPUT[1:]]])).sum().backward()
    attached.step(lambda _: None)  # a scaler's step that skips
    assert kept(attached) == [0, 1, 2, 3]
    assert attached.context.step == 50
    step(layer, attached)
    assert kept(attached) == [0, 1, 2, 5]


def test_a_gradient_scaler_works_through_updates() -> None:
    model, attached = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attached.bind(optimizer)
    scaler, start = torch.amp.GradScaler("cpu"), attached.masks()["0.weight"]
    for _ in range(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 5)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        attached.step(scaler.step)
        scaler.update()
    assert attached.context.step == 6
    assert not torch.equal(attached.masks()["0.weight"], start)


def network(density: float = 0.2, **values: Any) -> tuple[nn.Sequential, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))
    options = {"update_every": 4} | values
    return model, methods.attach(model, "rigl", total_steps=60, steps_per_epoch=10, density=density, **options)


def train(model: nn.Module, attached: methods.Attachment, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    attached.bind(optimizer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20, generator=generator)), torch.arange(16) % 5).backward()
        attached.step()


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_rigl_keeps_the_count_of_every_layer(optimizer_class: Any) -> None:
    model, attached = network()
    start, counts = attached.masks(), attached.kept_counts().tolist()
    assert sum(counts) == round(0.2 * 2150)
    train(model, attached, optimizer_class(model.parameters(), lr=0.01))
    assert attached.kept_counts().tolist() == counts
    assert all(not torch.equal(mask, start[name]) for name, mask in attached.masks().items())


def test_no_mask_moves_after_the_end_of_updates() -> None:
    model, attached = network(stops_at=0.5)  # T_end is 30 steps
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, attached, optimizer, 30)
    before = attached.masks()
    train(model, attached, optimizer, 30)
    assert all(torch.equal(mask, before[name]) for name, mask in attached.masks().items())


def test_a_frozen_layer_keeps_its_mask() -> None:
    model, attached = network()
    model[0].requires_grad_(False)
    start = attached.masks()
    train(model, attached, torch.optim.SGD(model.parameters(), lr=0.1))
    moved = [name for name, mask in attached.masks().items() if not torch.equal(mask, start[name])]
    assert moved == ["2.weight", "4.weight"]


def test_a_closure_is_refused_by_name() -> None:
    _, attached, _ = eight(50)
    with pytest.raises(RuntimeError, match="rigl reads the gradients before each step"):
        attached.step(closure=lambda: torch.zeros(()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stops_at": 1.5}, r"stops_at is 1.5: it must lie in \(0, 1\]"),
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"drop_fraction": -0.1}, r"drop_fraction is -0.1: it must lie in \[0, 1\]"),
        ({"allocation": "all"}, "allocation is 'all'; valid: er, erk, pattern, uniform"),
        ({"update_every": "often"}, "duration 'often' is not"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("rigl", **values)
