"""DEEP R on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.deep_r import DeepR

# place      0    1    2    3    4    5    6    7
# weight    0.4 -0.3  0.2 -0.1   .    .    .    .     keeps 4; learning rate 0.1
# sign       +    -    +    -    +    -    +    -
# dL/dw      1   -1    3   0.5   1    1    1    1     the input, for the loss sum(w x)
WEIGHTS = [0.4, -0.3, 0.2, -0.1, 0.0, 0.0, 0.0, 0.0]
POSITIVE = [True, False] * 4
INPUT = [1.0, -1.0, 3.0, 0.5, 1.0, 1.0, 1.0, 1.0]


def eight(seed: int = 0, momentum: float = 0.0, **values: Any) -> tuple[nn.Linear, methods.Attachment]:
    """Eight weights after five steps."""
    layer = nn.Linear(8, 1, bias=False)
    options = {"density": 0.5, "l1": 0.0, "noise": 0.0} | values
    attached = methods.attach(layer, "deep_r", total_steps=100, steps_per_epoch=10, seed=seed, **options)
    attached.set_masks({"weight": torch.tensor([WEIGHTS]) != 0})
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([WEIGHTS]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=momentum)
    attached.bind(optimizer)
    own = {"positive": {"weight": torch.tensor([POSITIVE])}}
    attached.load_state_dict(attached.state_dict() | {"step": 5, "own": own})
    return layer, attached


def step(layer: nn.Linear, attached: methods.Attachment, x: list[float] = INPUT) -> None:
    layer.weight.grad = None
    layer(torch.tensor([x])).sum().backward()
    attached.step()


def kept(attached: methods.Attachment) -> set[int]:
    return set(attached.masks()["weight"].flatten().nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("l1", "survivors", "values"),
    [
        (0.0, {0, 1, 3}, [0.3, -0.2, 0, -0.15]),  # 0.2 - 0.1 * 3 = -0.1 is below 0: dropped
        (1.0, {0, 1, 3}, [0.2, -0.1, 0, -0.05]),  # each 0.1 * 1 nearer to 0 as well
        (1.8, {0, 1}, [0.12, -0.02, 0, 0]),  # -0.15 + 0.18 = 0.03 is above 0: dropped too
    ],
)
def test_weights_that_change_their_sign_are_dropped(l1: float, survivors: set[int], values: list[float]) -> None:
    layer, attached = eight(l1=l1)
    step(layer, attached)
    found = kept(attached)
    assert len(found) == 4
    assert survivors <= found
    assert layer.weight.flatten().tolist() == pytest.approx([*values, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("weights_first", [True, False])
def test_a_weight_moves_by_the_learning_rate_of_its_own_group(weights_first: bool) -> None:
    layer = nn.Linear(20, 20)
    attached = methods.attach(layer, "deep_r", total_steps=9, steps_per_epoch=9, density=0.5, l1=0.1, noise=0.0)
    nn.init.ones_(layer.weight)
    groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.0}]
    attached.bind(torch.optim.SGD(groups if weights_first else groups[::-1], lr=0.5))
    layer.weight.grad = torch.zeros_like(layer.weight)
    attached.step()
    assert layer.weight[attached.masks()["weight"]].tolist() == pytest.approx([1 - 0.1 * 0.1] * 200)


def test_weights_grow_uniformly_among_those_not_kept() -> None:
    """400 draws of 2 of the 5 free places: each is drawn about 160 times."""
    method, mask = DeepR(), torch.tensor([POSITIVE])
    kept = torch.tensor([[True, True, False, True, False, False, False, False]])
    ctx: Any = SimpleNamespace(generator=torch.Generator().manual_seed(0))
    drawn = torch.zeros(8)
    for _ in range(400):
        grown = method.grown(ctx, "weight", mask, kept, 2)
        assert int(grown.sum()) == 2
        drawn += grown.flatten()
    assert not drawn[[0, 1, 3]].any()
    assert 125 < float(drawn[[2, 4, 5, 6, 7]].min()) <= float(drawn.max()) < 195


def test_a_grown_weight_stays_only_on_the_side_of_its_sign() -> None:
    # all grown weights move by -0.1 * 1: places 5 and 7 may be negative, 2, 4 and 6 may not
    for seed in range(12):
        layer, attached = eight(seed)
        step(layer, attached)
        (grown,) = kept(attached) - {0, 1, 3}
        step(layer, attached, [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
        assert (layer.weight[0, grown].item() != 0) == (grown in (5, 7))
        assert not (grown in (5, 7) and grown not in kept(attached))


def test_momentum_of_a_grown_weight_starts_at_zero() -> None:
    layer, attached = eight(momentum=0.9)
    optimizer = attached.context.optimizer
    assert optimizer is not None
    optimizer.state[layer.weight]["momentum_buffer"] = torch.tensor([[0.0, 0, 5, 0, 5, 5, 5, 5]])
    step(layer, attached)
    (grown,) = kept(attached) - {0, 1, 3}
    momentum = optimizer.state[layer.weight]["momentum_buffer"].flatten()
    assert momentum[grown] == 0
    assert (momentum[[place for place in (2, 4, 5, 6, 7) if place != grown]] != 0).all()


def trained(steps: int, optimizer_class: Any = torch.optim.SGD, **values: Any) -> tuple[nn.Module, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))
    attached = methods.attach(model, "deep_r", total_steps=60, steps_per_epoch=10, **({"density": 0.2} | values))
    optimizer = optimizer_class(model.parameters(), lr=1.0 if optimizer_class is torch.optim.SGD else 0.05)
    attached.bind(optimizer)
    counts = attached.kept_counts().tolist()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 5).backward()
        attached.step()
        assert attached.kept_counts().tolist() == counts
    return model, attached


@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_every_step_keeps_the_count_of_every_layer_and_no_weight_changes_its_sign(
    optimizer_class: Any, density: float
) -> None:
    model, attached = trained(1, optimizer_class, density=density)
    signs = attached.state_dict()["own"]["positive"]
    start = attached.masks()["0.weight"]
    model, attached = trained(60, optimizer_class, density=density)
    for name, mask in attached.masks().items():
        assert torch.equal(attached.state_dict()["own"]["positive"][name], signs[name])
        weight = model.get_parameter(name)
        assert bool(((weight >= 0) == signs[name])[mask & (weight != 0)].all())
    assert density == 1 or not torch.equal(attached.masks()["0.weight"], start)


def test_the_noise_has_its_deviation_and_reaches_kept_weights_only() -> None:
    layer = nn.Linear(200, 200, bias=False)
    attached = methods.attach(layer, "deep_r", total_steps=9, steps_per_epoch=9, density=0.5, l1=0.0, noise=1e-3)
    attached.bind(torch.optim.SGD(layer.parameters(), lr=0.1))
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    attached.step()
    mask: Tensor = attached.masks()["weight"]
    change = (layer.weight.detach() - before)[mask & (layer.weight != 0)] / (0.1 * 1e-3)
    assert float(change.std()) == pytest.approx(1, rel=0.03)
    assert abs(float(change.mean())) < 0.03
    assert not layer.weight[~mask].any()


def test_weights_that_are_initialised_after_attach_are_not_dropped_for_their_signs() -> None:
    layer = nn.Linear(40, 40, bias=False)
    attached = methods.attach(layer, "deep_r", total_steps=9, steps_per_epoch=9, density=0.5)
    attached.bind(torch.optim.SGD(layer.parameters(), lr=1e-6))
    nn.init.normal_(layer.weight)
    before = attached.masks()["weight"]
    for _ in range(3):
        layer(torch.randn(4, 40)).square().mean().backward()
        attached.step()
    assert int((attached.masks()["weight"] & before).sum()) >= 790


def test_a_frozen_layer_keeps_its_mask_and_its_weights() -> None:
    model, attached = trained(3)
    model.zero_grad()
    model[0].requires_grad_(False)
    before, weight = attached.masks()["0.weight"], model[0].weight.clone()
    model(torch.randn(16, 20)).square().mean().backward()
    attached.step()
    assert torch.equal(attached.masks()["0.weight"], before)
    assert torch.equal(model[0].weight, weight)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l1": -1e-5}, "l1 is -1e-05: it must be 0 or more"),
        ({"noise": float("inf")}, "noise is inf: it must be 0 or more"),
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("deep_r", **values)
