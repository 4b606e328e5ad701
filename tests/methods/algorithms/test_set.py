"""SET on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.set import SET

# weight   -0.1  0.9  -0.8  0.2  0.0  0.3  -0.6  0.7   and four pruned ones behind them
# kept       x    x     x    x    x    x     x    x
WEIGHTS = [-0.1, 0.9, -0.8, 0.2, 0.0, 0.3, -0.6, 0.7, 0.0, 0.0, 0.0, 0.0]
KEPT = [True] * 8 + [False] * 4


def dropped(weights: list[float] = WEIGHTS, kept: list[bool] = KEPT, **hyperparameters: Any) -> list[int]:
    mask = SET(**hyperparameters).drop_mask(torch.tensor([weights]), torch.tensor([kept]))
    return mask.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("fraction", "want"),
    [
        (0.3, [3, 4]),  # floor(.3 * 4) = 1 positive (0.2), floor(.3 * 3) = 0 negatives, and the zero
        (0.5, [0, 3, 4, 5]),  # 2 positives (0.2, 0.3), 1 negative (-0.1), and the zero
        (0.7, [0, 3, 4, 5, 6]),  # 2 positives, 2 negatives (-0.1, -0.6), and the zero
        (0.0, [4]),
        (1.0, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_signed_drops_the_smallest_positives_the_largest_negatives_and_zeros(fraction: float, want: list[int]) -> None:
    assert dropped(drop_fraction=fraction) == want


@pytest.mark.parametrize(
    ("fraction", "want"),
    [(0.3, [0, 4]), (0.5, [0, 3, 4, 5]), (0.63, [0, 3, 4, 5, 6]), (0.0, [])],  # of 8: floor(2.4), 4, floor(5.04)
)
def test_magnitude_drops_the_smallest_of_all_kept(fraction: float, want: list[int]) -> None:
    assert dropped(drop_fraction=fraction, drop="magnitude") == want


@pytest.mark.parametrize("drop", ["signed", "magnitude"])
def test_only_kept_weights_are_dropped(drop: str) -> None:
    kept = [i in (1, 2, 7) for i in range(12)]  # 0.9, -0.8, 0.7
    assert dropped(kept=kept, drop_fraction=0.5, drop=drop) == [7]


def trained(steps: int, **hyperparameters: Any) -> tuple[nn.Module, methods.Attachment, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5))
    values = {"density": 0.3, "update_every": 2, "drop_fraction": 0.5} | hyperparameters
    attached = methods.attach(model, "set", total_steps=100, steps_per_epoch=10, **values)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    advance(model, attached, steps)
    return model, attached, optimizer


def advance(model: nn.Module, attached: methods.Attachment, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model.zero_grad()
        x = torch.randn(16, 20, generator=generator)
        F.cross_entropy(model(x), torch.arange(16) % 5).backward()
        attached.step()


def counts(attached: methods.Attachment) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in attached.masks().items()}


@pytest.mark.parametrize("drop", ["signed", "magnitude"])
def test_every_update_keeps_the_count_of_every_layer(drop: str) -> None:
    model, attached, _ = trained(0, drop=drop)
    want = counts(attached)
    assert sum(want.values()) == round(0.3 * 750)
    for _ in range(8):
        before = attached.masks()
        advance(model, attached, 2)
        assert counts(attached) == want
        assert any(not torch.equal(mask, before[name]) for name, mask in attached.masks().items())


def test_masks_change_at_updates_alone() -> None:
    model, attached, _ = trained(0, update_every=3)
    changes = []
    for step in range(1, 10):
        before = attached.masks()
        advance(model, attached, 1)
        if any(not torch.equal(mask, before[name]) for name, mask in attached.masks().items()):
            changes.append(step)
    assert changes == [3, 6, 9]


def test_there_is_no_update_after_the_last_step() -> None:
    model = nn.Linear(20, 10)
    attached = methods.attach(model, "set", total_steps=4, steps_per_epoch=2, density=0.5)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1))
    seen = [attached.masks()["weight"]]
    for _ in range(4):
        model(torch.ones(1, 20)).sum().backward()
        attached.step()
        seen.append(attached.masks()["weight"])
    assert [torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [True, False, True, True]


def momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}


def test_grown_weights_start_at_zero_with_zero_momentum_and_no_other_momentum_changes() -> None:
    model, attached, optimizer = trained(5)
    before_masks = attached.masks()
    seen: list[dict[str, Tensor]] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(momentum(model, optimizer)))
    advance(model, attached, 1)  # the update after step 6
    after = momentum(model, optimizer)
    grown_somewhere = False
    for name, mask in attached.masks().items():
        grown = mask & ~before_masks[name]
        grown_somewhere |= bool(grown.any())
        zeroed = after[name] != seen[0][name]
        assert not model.get_parameter(name)[grown].any()
        assert not after[name][grown].any()
        assert (seen[0][name][grown] != 0).any(), "the example must have momentum to zero"
        assert not after[name][zeroed].any()
        assert not (zeroed & ~mask).any(), "momentum of dropped weights stays"
        surviving = before_masks[name] & mask & (model.get_parameter(name) != 0)
        assert torch.equal(after[name][surviving], seen[0][name][surviving])
    assert grown_somewhere
    assert torch.equal(after["0.bias"], seen[0]["0.bias"])


def test_a_weight_dropped_and_grown_again_in_one_update_starts_anew() -> None:
    # density 1: all that is dropped can only grow in its own place
    model, attached, optimizer = trained(2, density=1.0)
    weight = model.get_parameter("0.weight")
    assert int((weight == 0).sum()) > 200
    assert not momentum(model, optimizer)["0.weight"][weight == 0].any()
    assert attached.density() == 1


def test_adams_moments_of_grown_weights_are_zeroed_too() -> None:
    torch.manual_seed(0)
    model = nn.Linear(10, 10)
    attached = methods.attach(
        model, "set", total_steps=9, steps_per_epoch=9, density=0.4, update_every=1, drop_fraction=0.5
    )
    optimizer = torch.optim.Adam(attached.parameter_groups(), lr=0.1)
    attached.bind(optimizer)
    before = attached.masks()["weight"]
    model(torch.randn(4, 10)).square().sum().backward()
    attached.step()
    grown = attached.masks()["weight"] & ~before
    state = optimizer.state[model.weight]
    assert grown.any()
    assert not state["exp_avg"][grown].any()
    assert not state["exp_avg_sq"][grown].any()
    assert state["exp_avg"].any()
    assert state["step"] == 1


def test_growth_is_random_among_all_positions_not_kept() -> None:
    """400 draws of 3 of the 8 free positions: each is drawn about 150 times."""
    method, generator = SET(), torch.Generator().manual_seed(0)
    kept = torch.tensor([[True, False] * 4 + [False] * 4])
    drawn = torch.zeros(12)
    ctx: Any = SimpleNamespace(generator=generator)
    for _ in range(400):
        grown = method.grown(ctx, "weight", kept, kept, 3)
        assert int(grown.sum()) == 3
        assert not (grown & kept).any()
        drawn += grown.flatten()
    free = drawn[~kept.flatten()]
    assert 115 < float(free.min()) <= float(free.max()) < 185


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drop": "largest"}, "drop is 'largest'; valid: signed, magnitude"),
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"drop_fraction": 1.2}, r"drop_fraction is 1.2: it must lie in \[0, 1\]"),
        ({"allocation": "all"}, "allocation is 'all'; valid: er, erk, pattern, uniform"),
        ({"update_every": "often"}, "duration 'often' is not"),
        ({"update_every": 0}, "duration 0 is not"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("set", **values)
