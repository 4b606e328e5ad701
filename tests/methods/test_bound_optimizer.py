"""Steps are the optimizer's updates: those that a wrapper or a scaler skips are not counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attached_model import Block, attach, backward, sgd
from torch import Tensor

import methods
from methods import Context, Method
from methods.algorithms.granet import GraNet


class Accumulating(torch.optim.Optimizer):
    """Steps every `every`-th call, as wrappers that accumulate gradients do. Not initialised as an Optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer, every: int, *, name: str = "optimizer") -> None:
        self.__dict__[name] = optimizer
        self.inner, self.every, self.calls = optimizer, every, 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.inner.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.calls += 1
        if self.calls % self.every == 0:
            self.inner.step()


@pytest.mark.parametrize("name", ["optimizer", "_optimizer", "of_another_name"])
def test_calls_that_a_wrapper_skips_are_no_steps(name: str) -> None:
    model = Block()
    attached = attach(model, "set", density=0.5)
    attached.bind(Accumulating(torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9), 3, name=name))
    steps = []
    for _ in range(6):
        backward(model, attached)
        attached.step()
        steps.append(attached.context.step)
    assert steps == [0, 0, 1, 1, 1, 2]


class ThroughData:
    """None of torch's optimizers, and its writes raise no version."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups

    def step(self) -> None:
        for parameter in (p for group in self.param_groups for p in group["params"]):
            parameter.data.sub_(parameter.grad, alpha=0.1)


def test_steps_of_an_optimizer_that_is_none_of_torch_and_writes_through_data_are_counted() -> None:
    model = Block()
    attached = attach(model, "gradual", density=0.3)
    attached.bind(ThroughData(attached.parameter_groups()))  # type: ignore[arg-type]
    for _ in range(attached.total_steps):
        backward(model, attached)
        attached.step()
    assert attached.context.step == attached.total_steps
    assert attached.density() == pytest.approx(0.3, abs=0.01)


def test_steps_that_a_scaler_skips_are_not_counted_and_masks_hold() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    sgd(attached)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert attached.step(lambda optimizer: None) is False
    assert attached.context.step == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    attached.step(lambda optimizer: optimizer.step())
    assert attached.context.step == 1


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_scaler_that_found_infinite_gradients_makes_no_step(kind: Any, fused: bool) -> None:
    """A fused optimizer skips the update inside of its step, which the scaler calls all the same."""
    model = Block()
    attached = attach(model, "granet", density=0.3, update_every=2)
    optimizer = kind(attached.parameter_groups(), lr=0.1, fused=fused)
    attached.bind(optimizer)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=1024.0), attached.masks()
    for size, steps in ((1.0, 1), (float("inf"), 1), (1.0, 2)):
        model.zero_grad()
        loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3)
        scaler.scale(size * loss).backward()
        scaler.unscale_(optimizer)
        attached.step(scaler.step)
        scaler.update()
        assert attached.context.step == steps
        moved = any(not torch.equal(mask, before[name]) for name, mask in attached.masks().items())
        assert moved == (steps == 2)


def test_another_optimizer_takes_over_at_bind() -> None:
    model = Block()
    attached = attach(model)
    first, second = sgd(attached), sgd(attached)
    assert attached.step(lambda _: first.step()) is False
    assert attached.context.step == 0
    attached.step(lambda _: second.step())
    assert attached.context.step == 1


class ReadsGradients(Method):
    name, version, reference, density_promise = "reads_gradients", 1, "none", "dense"

    def after_backward(self, ctx: Context) -> bool:
        return True


def test_a_method_that_reads_gradients_refuses_what_would_show_it_others() -> None:
    attached = attach(Block(), ReadsGradients())
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1)
    with pytest.raises(
        ValueError, match="Accumulating wraps an optimizer that may not step: bind the optimizer itself"
    ):
        attached.bind(Accumulating(optimizer, 2))
    attached.bind(optimizer)
    with pytest.raises(RuntimeError, match="reads the gradients before each step: a closure computes them too late"):
        attached.step(closure=lambda: torch.zeros(()))


def test_a_closure_is_evaluated_by_the_optimizer() -> None:
    model = Block()
    attached = attach(model, "dst")
    optimizer = sgd(attached)
    losses: list[Tensor] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
        loss.backward()
        losses.append(loss)
        return loss

    attached.step(closure=closure)
    assert (len(losses), attached.context.step) == (1, 1)
    with pytest.raises(RuntimeError, match="a closure or a scaler's step, not both"):
        attached.step(lambda o: o.step(), closure=closure)


@pytest.mark.parametrize(("weight_decay", "groups"), [(0.0, 1), (1e-4, 2)])
def test_thresholds_have_a_group_of_their_own_where_they_decay_otherwise(weight_decay: float, groups: int) -> None:
    model = Block()
    found = attach(model, "dst").parameter_groups(weight_decay=weight_decay)
    assert len(found) == groups
    assert {id(p) for group in found for p in group["params"]} == {id(p) for p in model.parameters()}
    assert sum(len(group["params"]) for group in found) == len(list(model.parameters()))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "lbfgs": lambda groups: torch.optim.LBFGS(groups),
    "foreach": lambda groups: torch.optim.Adam(groups, foreach=True),
    "fused": lambda groups: torch.optim.Adam(groups, fused=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_kind_of_optimizer_counts(kind: str) -> None:
    model = Block()
    attached = attach(model, "dst")
    optimizer = OPTIMIZERS[kind](attached.parameter_groups())
    attached.bind(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        return backward(model, attached)

    for step in (1, 2):
        attached.step(closure=closure)
        assert attached.context.step == step
    assert isinstance(attached, methods.Attachment)


def test_an_optimizer_that_also_steps_elsewhere_is_named() -> None:
    first, second = Block(), Block()
    attachments = [attach(model, density=0.3) for model in (first, second)]
    optimizer = torch.optim.SGD([p for one in attachments for g in one.parameter_groups() for p in g["params"]], lr=0.1)
    for model, attached in zip((first, second), attachments, strict=True):
        attached.bind(optimizer)
        backward(model, attached)
    attachments[0].step()
    with pytest.warns(UserWarning, match=r"stepped outside of attached\.step\(\)"):
        attachments[1].step()


def test_an_optimizer_that_only_the_attachment_steps_is_not_named(recwarn: pytest.WarningsRecorder) -> None:
    model = Block()
    attached = attach(model, density=0.3)
    sgd(attached)
    for _ in range(3):
        backward(model, attached)
        attached.step()
    assert not recwarn.list


class Descent(torch.optim.SGD):
    """Never made itself, so that torch has not wrapped its step with hooks."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad


class Stepping(Descent):
    """For loops that call optimizer.step() themselves: torch's hook runs after this step, not inside it."""

    def __init__(self, attached: methods.Attachment) -> None:
        super().__init__(attached.parameter_groups(), lr=0.1)
        self.attached = attached
        attached.bind(self)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.attached.step(lambda _: super(Stepping, self).step())


def test_an_optimizer_whose_step_steps_the_method_counts(recwarn: pytest.WarningsRecorder) -> None:
    model = Block()
    attached = attach(model, "set", density=0.3)
    optimizer = Stepping(attached)
    before = attached.masks()
    for step in (1, 2, 3):
        backward(model, attached)
        optimizer.step()
        assert attached.context.step == step
    assert any(not torch.equal(mask, before[name]) for name, mask in attached.masks().items())
    assert not recwarn.list


def test_bind_warns_once_where_the_optimizer_decays_thresholds() -> None:
    """AdamW over all parameters decays DST's thresholds by its default of 0.01."""
    model = Block()
    attached = attach(model, "dst")
    advice = r"parameter_groups\(weight_decay=0\.01\), or attach with threshold_weight_decay=0\.01 to keep this decay$"
    with pytest.warns(
        UserWarning, match=rf"^the optimizer decays thresholds by 0\.01, and dst wants 0: .*{advice}"
    ) as at:
        attached.bind(torch.optim.AdamW(model.parameters()))
    assert [one.filename for one in at] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached.bind(torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize("method", ["set", "dst", "str"])
def test_bind_does_not_warn_of_the_decay_that_the_method_wants(method: str) -> None:
    model = Block()
    attached = attach(model, method, **({"density": 0.5} if method == "set" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached.bind(torch.optim.AdamW(attached.parameter_groups(weight_decay=0.01)))
        if method == "set":
            attached.bind(torch.optim.AdamW(model.parameters()))


def test_a_decay_of_thresholds_that_was_asked_for_is_no_warning() -> None:
    model = Block()
    attached = attach(model, "dst", threshold_weight_decay=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached.bind(torch.optim.AdamW(model.parameters()))


def test_masked_weights_that_train_without_the_optimizer_are_named_once() -> None:
    model = Block()
    attached = attach(model, "set", density=0.5)
    attached.bind(torch.optim.SGD(model.head.parameters(), lr=0.1))
    backward(model, attached)
    message = (
        r"^the optimizer does not train features\.0\.weight, features\.1\.0\.weight, which have .*, or freeze them"
    )
    with pytest.warns(UserWarning, match=message) as at:
        attached.step()
    assert [one.filename for one in at] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(model, attached)
        attached.step()


def test_parameters_that_are_unfrozen_after_bind_are_named_once() -> None:
    model = Block()
    model.features[0].requires_grad_(False)
    attached = attach(model, "set", density=0.5)
    sgd(attached)
    model.requires_grad_(True)
    backward(model, attached)
    with pytest.warns(
        UserWarning, match=r"^the optimizer does not train features\.0\.weight, features\.0\.bias, which"
    ):
        attached.step()
    sgd(attached)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(model, attached)
        attached.step()


def test_frozen_weights_that_the_optimizer_lacks_are_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    model = Block()
    attached = attach(model, "set", density=0.5)
    model.features.requires_grad_(False)
    attached.bind(torch.optim.SGD(model.head.parameters(), lr=0.1))
    backward(model, attached)
    attached.step()
    assert not recwarn.list


@pytest.mark.parametrize("foreach", [False, True])
def test_after_a_dense_step_hooks_find_the_gradients_that_the_loop_computed(foreach: bool) -> None:
    """SGD overwrites them with g + mu * momentum where foreach is on, and granet would grow by that."""
    found = []

    class Reads(GraNet):
        def after_step(self, ctx: Context) -> None:
            if self.due(ctx):
                found.append([weight.parameter.grad.clone() for weight in ctx.weights.values()])

    model = Block()
    attached = attach(model, Reads(density=0.3, update_every=2))
    sgd = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)
    attached.bind(sgd)
    for _ in range(2):
        backward(model, attached)
        want = [weight.parameter.grad.clone() for weight in attached.context.weights.values()]
        attached.step()
    assert all(torch.equal(a, b) for a, b in zip(found[-1], want, strict=True))
