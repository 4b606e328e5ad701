"""An optimizer that steps a method: with closures, accumulation, clipping, schedulers and a scaler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.integrations.stepping import check_phases, take_over

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
BATCHES = list(zip(X.split(8), Y.split(8), strict=True))
OPTIONS: dict[str, dict[str, Any]] = {
    "set": {"density": 0.3, "update_every": 2},
    "dst": {"alpha": 1e-2},
    "sparse_momentum": {"density": 0.3, "update_every": 2},
    "variational_dropout": {"train_examples": 32},
}


def attached_model(method: str) -> tuple[nn.Module, methods.Attachment]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return model, methods.attach(model, method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])


def sgd(attached: methods.Attachment) -> torch.optim.Optimizer:
    return torch.optim.SGD(attached.parameter_groups(weight_decay=1e-3), lr=0.1, momentum=0.9)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def own_loop(method: str, steps: int = 8) -> tuple[nn.Module, methods.Attachment]:
    model, attached = attached_model(method)
    optimizer = sgd(attached)
    attached.bind(optimizer)
    for x, y in (BATCHES * 2)[:steps]:
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + attached.penalty()).backward()
        attached.step()
    return model, attached


@pytest.mark.parametrize("how", ["backward first", "closure", "scheduler before", "scheduler after", "scaler"])
@pytest.mark.parametrize("method", OPTIONS)
def test_it_trains_as_a_loop_of_ones_own(method: str, how: str) -> None:
    model, attached = attached_model(method)
    optimizer = sgd(attached)
    if how == "scheduler before":
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    take_over(attached, optimizer)
    if how == "scheduler after":
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for x, y in BATCHES * 2:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            (scaler.scale(loss) if how == "scaler" else loss).backward()
            return loss

        if how == "closure":
            with torch.no_grad():  # as a trainer may call it
                assert optimizer.step(closure) > 0
            continue
        closure()
        if how == "scaler":
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
    expected, its = own_loop(method)
    assert attached.context.step == 8
    if method == "variational_dropout":  # its penalty is of the weights, whose gradients are summed in another order
        for value, other in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4)
    else:
        assert same(model, expected)
    assert attached.density() == its.density()


def test_a_step_that_the_scaler_skips_is_none_of_the_methods() -> None:
    model, attached = attached_model("dst")
    optimizer = sgd(attached)
    take_over(attached, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    scaler.scale(F.cross_entropy(model(X), Y) * float("inf")).backward()
    scaler.step(optimizer)
    assert attached.context.step == 0


def test_taking_an_optimizer_over_again_steps_the_method_once() -> None:
    """A trainer's second fit may bring the same optimizer."""
    model, attached = attached_model("dst")
    optimizer = sgd(attached)
    take_over(attached, optimizer)
    take_over(attached, optimizer)
    for x, y in BATCHES * 2:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert attached.context.step == 8
    assert same(model, own_loop("dst")[0])


@pytest.mark.parametrize("method", OPTIONS)
def test_a_step_after_several_backward_passes_has_the_penalty_once(method: str) -> None:
    model, attached = attached_model(method)
    optimizer = sgd(attached)
    take_over(attached, optimizer)
    expected, other = attached_model(method)
    reference = sgd(other)
    other.bind(reference)
    for first, second in (BATCHES[:2], BATCHES[2:]):
        for optimizer_, network in ((optimizer, model), (reference, expected)):
            optimizer_.zero_grad()
            for x, y in (first, second):
                (F.cross_entropy(network(x), y) / 2).backward()
        optimizer.step()
        other.penalty().backward() if other.penalty().requires_grad else None
        other.step()
    assert attached.context.step == 2
    assert same(model, expected)


def test_the_penalty_is_added_after_clipping() -> None:
    """Clipped to almost nothing, the gradients that are left are the penalty's, in the thresholds."""
    model, attached = attached_model("dst")
    optimizer = sgd(attached)
    take_over(attached, optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected = torch.autograd.grad(attached.penalty(), parameters, allow_unused=True)
    F.cross_entropy(model(X), Y).backward()
    nn.utils.clip_grad_norm_(parameters, 1e-12)
    optimizer.step()
    assert sum(gradient is not None for gradient in expected) == 2
    for parameter, gradient in zip(parameters, expected, strict=True):
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-10)


def test_thresholds_that_would_decay_are_refused() -> None:
    model, attached = attached_model("dst")
    with pytest.raises(ValueError, match=r"decays thresholds by 0\.1, and dst wants 0: build it from attached\.param"):
        take_over(attached, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    take_over(attached, torch.optim.SGD(model.parameters(), lr=0.1))


def test_methods_that_need_another_optimizer_are_refused_by_their_phase() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    attached = methods.attach(model, "lottery", total_steps=8, steps_per_epoch=4, density=0.3)
    with pytest.raises(ValueError, match=r"lottery begins phase '.*' with another optimizer or learning rate"):
        check_phases(attached)
    for name in OPTIONS:
        check_phases(attached_model(name)[1])


def test_a_fused_optimizer_under_a_scaler_is_refused_where_there_is_a_penalty() -> None:
    model, attached = attached_model("dst")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    take_over(attached, optimizer)
    optimizer.grad_scale = torch.tensor(256.0)  # type: ignore[attr-defined]
    F.cross_entropy(model(X), Y).backward()
    with pytest.raises(ValueError, match="a fused optimizer unscales gradients inside its step"):
        optimizer.step()
