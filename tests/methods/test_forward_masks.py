"""Masks in the forward pass: the layer computes with W * M, and all of W gets a gradient."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods import Context, Method, scores
from methods.conformance import check_method


@dataclass(kw_only=True)
class LargestInForward(Method):
    """Computes with the largest weights of each layer, chosen anew after every step."""

    name = "largest_in_forward"
    version = 1
    reference = "none"
    density_promise = "exact"
    masking = "forward"
    weight_gradient = "dense"

    density: float = 0.5

    def enter_phase(self, ctx: Context) -> None:
        self.after_step(ctx)

    def after_step(self, ctx: Context) -> None:
        sizes = {name: weight.parameter.detach().abs() for name, weight in ctx.weights.items()}
        total = round(self.density * sum(size.numel() for size in sizes.values()))
        ctx.masks.set(scores.top_of_all(sizes, total))


def attached(density: float = 0.5) -> tuple[nn.Module, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, methods.attach(model, LargestInForward(density=density), total_steps=10, steps_per_epoch=5)


def with_masks(model: nn.Module, at: methods.Attachment, x: Tensor) -> Tensor:
    masks, weights = at.masks(), at.weights()
    hidden = F.linear(x, weights["0.weight"] * masks["0.weight"], model[0].bias).relu()
    return F.linear(hidden, weights["2.weight"] * masks["2.weight"], model[2].bias)


@pytest.mark.parametrize("level", ["fast", pytest.param("full", marks=[pytest.mark.slow, pytest.mark.rare])])
def test_the_kit_passes(level: Literal["fast", "full"]) -> None:
    check_method(LargestInForward, level=level)


def test_the_layer_computes_with_the_masked_weight_and_the_parameter_stays_dense() -> None:
    model, at = attached()
    x = torch.randn(4, 6)
    assert torch.equal(model(x), with_masks(model, at, x))
    assert all(bool((weight != 0).all()) for weight in at.weights().values())
    assert at.density() == 0.5


def test_the_gradient_of_the_product_passes_to_all_weights() -> None:
    model, at = attached()
    x, weight = torch.randn(4, 6), at.weights()["2.weight"]
    model(x).sum().backward()
    product = (weight * at.masks()["2.weight"]).detach().requires_grad_(True)
    hidden = model[1](model[0](x)).detach()
    F.linear(hidden, product, model[2].bias).sum().backward()
    assert torch.equal(weight.grad, product.grad)
    assert bool((weight.grad[~at.masks()["2.weight"]] != 0).any())


def test_pruned_weights_train_and_return_with_their_values() -> None:
    model, at = attached()
    optimizer = torch.optim.SGD(at.parameter_groups(), lr=0.1)
    at.bind(optimizer)
    before = {name: weight.detach().clone() for name, weight in at.weights().items()}
    masks = at.masks()
    model(torch.randn(4, 6)).square().sum().backward()
    at.step()
    moved = at.weights()["2.weight"] != before["2.weight"]
    assert bool(moved[~masks["2.weight"]].any())


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_finalize_of_a_copy_bakes_the_masks_and_leaves_the_original(how: str) -> None:
    model, at = attached()
    x = torch.randn(4, 6)
    want = model(x)
    copied = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert torch.equal(copied(x), want)
    methods.finalize(copied)
    assert torch.equal(copied(x), want)
    assert type(copied[0]) is nn.Linear
    assert torch.equal(copied[0].weight != 0, at.masks()["0.weight"])
    assert torch.equal(model(x), want)
    assert at.density() == 0.5


def test_a_written_copy_follows_the_masks_of_the_original() -> None:
    model, at = attached()
    average = copy.deepcopy(model)
    at.set_masks({name: torch.zeros_like(mask) for name, mask in at.masks().items()})
    with torch.no_grad():
        for mine, other in zip(average.parameters(), model.parameters(), strict=True):
            mine.copy_(other)
    x = torch.randn(4, 6)
    assert torch.equal(average(x), model(x))
    assert torch.equal(model(x), model[2].bias.expand(4, 3))


@pytest.mark.filterwarnings("error")
def test_weights_are_loaded_in_silence() -> None:
    """Dense values do not show from which step they are: an average may be swapped in, a bias loaded."""
    model, at = attached()
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    for _ in range(2):
        model(torch.randn(4, 6)).square().sum().backward()
        at.step()
    backup = copy.deepcopy(model.state_dict())
    model.load_state_dict({name: 0.9 * value for name, value in backup.items()})
    copy.deepcopy(model).load_state_dict(backup)
    model.load_state_dict({"2.bias": torch.zeros(3)}, strict=False)
    model.load_state_dict(backup)
    x = torch.randn(4, 6)
    assert torch.equal(model(x), with_masks(model, at, x))


def test_functional_call_and_compile_compute_with_the_mask() -> None:
    model, at = attached()
    x = torch.randn(4, 6)
    doubled = {name: 2 * value for name, value in model.named_parameters()}
    masks = at.masks()
    hidden = F.linear(x, doubled["0.weight"] * masks["0.weight"], doubled["0.bias"]).relu()
    want = F.linear(hidden, doubled["2.weight"] * masks["2.weight"], doubled["2.bias"])
    torch.testing.assert_close(torch.func.functional_call(model, doubled, (x,)), want)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.slow
def test_a_compiled_model_follows_changing_masks() -> None:
    model, at = attached()
    compiled, x = torch.compile(model), torch.randn(4, 6)
    torch.testing.assert_close(compiled(x), model(x))
    at.set_masks({name: ~mask for name, mask in at.masks().items()})
    torch.testing.assert_close(compiled(x), with_masks(model, at, x))


@pytest.mark.slow
def test_a_compiled_copy_that_loads_the_model_follows_its_masks() -> None:
    model, at = attached()
    average, x = copy.deepcopy(model), torch.randn(4, 6)
    compiled = torch.compile(average)
    compiled(x)
    at.set_masks({name: ~mask for name, mask in at.masks().items()})
    average.load_state_dict(model.state_dict())
    torch.testing.assert_close(compiled(x), with_masks(model, at, x))


def test_attaching_that_fails_leaves_the_model_as_it_was() -> None:
    class Fails(LargestInForward):
        def after_step(self, ctx: Context) -> None:
            super().after_step(ctx)
            raise ValueError("no")

    model = nn.Sequential(nn.Linear(6, 8))
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match="no"):
        methods.attach(model, Fails(), total_steps=1, steps_per_epoch=1)
    assert type(model[0]) is nn.Linear
    assert torch.equal(model[0].weight, before)
