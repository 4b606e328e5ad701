"""A loop that leaves out a part of what its method needs is told so, and a complete loop is told nothing."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import methods
from methods import Attachment

X, Y = torch.randn(32, 20), torch.randint(5, (32,))
PENALIZED = ("dst", "top_kast", "variational_dropout")
EXAMPLES = {"variational_dropout": {"train_examples": 160}}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))


def attach(method: str, *, steps: int = 20, epoch: int = 5, **hyperparameters: Any) -> tuple[nn.Sequential, Attachment]:
    model, given = mlp(), {**EXAMPLES.get(method, {}), **hyperparameters}
    return model, methods.attach(model, method, total_steps=steps, steps_per_epoch=epoch, **given)


def sgd(attached: Attachment, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(attached.parameter_groups(weight_decay=0), lr=lr, momentum=0.9, **options)
    attached.bind(optimizer)
    return optimizer


def train(
    model: nn.Module, attached: Attachment, optimizer: torch.optim.Optimizer, steps: int, *, penalty: bool = True
) -> list[str]:
    """The warnings of some steps. Where a phase begins, nothing else is done."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(steps):
            loss = F.cross_entropy(model(X), Y)
            (loss + attached.penalty() if penalty else loss).backward()
            attached.step()
            optimizer.zero_grad()
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("method", PENALIZED)
def test_a_loss_without_the_penalty_is_told_once(method: str) -> None:
    model, attached = attach(method, steps=400)  # the penalty of variational_dropout begins as 0
    (told,) = train(model, attached, sgd(attached), 40, penalty=False)
    assert told.startswith(f"{method} has a penalty, and the loop does not add it")
    assert not train(model, attached, sgd(attached), 40, penalty=False)


@pytest.mark.parametrize("method", ["dst", "set"])
def test_a_compiled_loss_with_the_penalty_is_compiled_once(method: str) -> None:
    model, attached = attach(method)
    sgd(attached)
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled = torch.compile(lambda: F.cross_entropy(model(X), Y) + attached.penalty(), backend=graphs, fullgraph=True)
    for _ in range(12):
        compiled().backward()
        attached.step()
    assert graphs.frame_count == 1


@pytest.mark.parametrize(
    ("method", "hyperparameters"), [("set", {}), ("dst", {"alpha": 0.0}), ("top_kast", {"l2": 0.0})]
)
def test_a_method_that_adds_nothing_needs_no_penalty(method: str, hyperparameters: dict[str, float]) -> None:
    model, attached = attach(method, **hyperparameters)
    assert not train(model, attached, sgd(attached), 5, penalty=False)


@pytest.mark.parametrize("method", [*PENALIZED, "set", "gradual", "static"])
def test_a_complete_loop_is_told_nothing(method: str) -> None:
    model, attached = attach(method)
    assert not train(model, attached, sgd(attached), 20)


def test_a_resumed_loop_that_adds_the_penalty_is_told_nothing() -> None:
    model, attached = attach("dst")
    optimizer = sgd(attached)
    train(model, attached, optimizer, 5)
    state = attached.state_dict()
    again, resumed = attach("dst")
    resumed.load_state_dict(state)
    again.load_state_dict(model.state_dict())
    assert not train(again, resumed, sgd(resumed), 5)


def test_a_resumed_loop_without_the_penalty_is_told() -> None:
    model, attached = attach("dst", steps=2000)
    attached.load_state_dict(attached.state_dict() | {"step": 1025})
    assert len(train(model, attached, sgd(attached), 3, penalty=False)) == 1


def test_a_phase_that_keeps_the_old_optimizer_or_rate_is_told() -> None:
    model, attached = attach("prune_finetune", lr_scale=0.1)
    optimizer, rate = train(model, attached, sgd(attached), 22)
    assert "the phase 'round 1' wants a new optimizer, and the old one is still bound" in optimizer
    assert (
        "the learning rate of the phase 'round 1' is 0.1 times the schedule's, and the optimizer still has 0.1" in rate
    )


def test_a_new_optimizer_whose_rate_is_the_decayed_one_is_told_nothing() -> None:
    model, attached = attach("prune_finetune", lr_scale=0.1)
    optimizer = sgd(attached)
    train(model, attached, optimizer, 10)
    optimizer.param_groups[0]["lr"] = rate = 0.1 * 0.1  # as StepLR would
    assert not train(model, attached, optimizer, 10)
    assert attached.phase.lr_scale == 0.1
    assert not train(model, attached, sgd(attached, lr=rate), 20)


@pytest.mark.parametrize("rate", [None, "absent"])
def test_an_optimizer_without_a_learning_rate_can_be_used(rate: str | None) -> None:
    class Relative(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.sub_(0.1 * parameter.grad)

    model, attached = attach("prune_finetune", lr_scale=0.1)
    optimizer = Relative(attached.parameter_groups(weight_decay=0), lr=0.1)
    optimizer.param_groups[0]["lr"] = None
    if rate == "absent":
        del optimizer.param_groups[0]["lr"]
    attached.bind(optimizer)
    assert not train(model, attached, optimizer, 25)


def test_a_phase_with_its_optimizer_and_rate_is_told_nothing() -> None:
    model, attached = attach("prune_finetune", lr_scale=0.1)
    assert not train(model, attached, sgd(attached), 20)
    assert not train(model, attached, sgd(attached, lr=0.1 * attached.phase.lr_scale), 20)


@pytest.mark.parametrize("method", ["set", "gradual"])
def test_a_training_longer_than_attach_was_told_is_told_once(method: str) -> None:
    model, attached = attach(method, steps=10)
    optimizer = sgd(attached)
    assert not train(model, attached, optimizer, 10)
    (told,) = train(model, attached, optimizer, 5)
    assert told.startswith("attach was told that the training has 10 optimizer steps, and it goes on after them")


@pytest.mark.parametrize("method", ["dst", "static"])
def test_a_method_without_a_plan_for_the_steps_may_train_on(method: str) -> None:
    model, attached = attach(method, steps=10)
    assert not train(model, attached, sgd(attached), 15)


@pytest.mark.parametrize("method", ["set", "rigl", "dsr", "sparse_momentum", "top_kast"])
def test_masks_that_never_change_in_so_few_steps_are_told_in_attach(method: str) -> None:
    with pytest.warns(
        UserWarning, match=f"{method} changes its masks every .* in this training of 4 they never change"
    ) as told:
        attach(method, steps=4, epoch=100)  # 100 steps are also the period of the other methods
    lines, first = inspect.getsourcelines(attach)  # the line that calls methods.attach
    assert "methods.attach" in lines[told[0].lineno - first]


@pytest.mark.parametrize("method", ["gradual", "dst", "lottery"])
def test_finalize_tells_of_a_training_that_was_never_bound(method: str) -> None:
    model, _ = attach(method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    with pytest.warns(UserWarning, match=f"so {method} did nothing in this training: call attached.bind"):
        methods.finalize(model)


@pytest.mark.filterwarnings("error")
def test_gradients_from_before_attach_are_no_training() -> None:
    model = mlp()
    F.cross_entropy(model(X), Y).backward()
    methods.attach(model, "gradual", total_steps=20, steps_per_epoch=5)
    methods.finalize(model)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["gradual", "dst"])
def test_finalize_without_a_training_tells_nothing(method: str) -> None:
    """A model is attached to load a checkpoint, and to evaluate it."""
    model, attached = attach(method)
    model.load_state_dict(model.state_dict())
    attached.load_state_dict(attached.state_dict())
    model(X)
    methods.finalize(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.AdamW(groups, lr=1e-3),
        lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.01),
    ],
)
def test_a_weight_decay_that_reaches_no_weight_is_told(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    _, attached = attach("set")
    optimizer = make(attached.parameter_groups())
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    with pytest.warns(
        UserWarning, match=r"weight_decay of 0.01 .* reaches no weight.*parameter_groups\(weight_decay=0.01\)"
    ):
        attached.bind(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for decay in (0, 0.01):
            attached.bind(make(attached.parameter_groups(weight_decay=decay)))


class Clearing(torch.optim.SGD):
    """Clears the gradients in its step, as the second step of SAM does by its published idiom."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        self.zero_grad()


def moved(method: str, optimizer: type[torch.optim.SGD]) -> dict[str, Tensor]:
    model, attached = attach(method, density=0.3)
    attached.bind(optimizer(attached.parameter_groups(weight_decay=0), lr=0.1))
    for _ in range(12):
        F.cross_entropy(model(X), Y).backward()
        attached.step()
        model.zero_grad()
    return attached.masks()


@pytest.mark.parametrize("method", ["set", "deep_r"])
def test_a_step_that_clears_the_gradients_moves_as_many_weights(method: str) -> None:
    cleared, kept = moved(method, Clearing), moved(method, torch.optim.SGD)
    start = attach(method, density=0.3)[1].masks()
    assert any(not torch.equal(kept[name], start[name]) for name in kept)
    assert all(torch.equal(cleared[name], kept[name]) for name in kept)


def test_granet_says_that_the_gradients_it_grows_by_were_cleared() -> None:
    model, attached = attach("granet", density=0.3, update_every=2)
    attached.bind(Clearing(attached.parameter_groups(weight_decay=0), lr=0.1))
    F.cross_entropy(model(X), Y).backward()
    attached.step()
    F.cross_entropy(model(X), Y).backward()
    with pytest.raises(RuntimeError, match=r"was cleared in it: let the optimizer keep gradients"):
        attached.step()


def test_a_scaler_that_fails_for_another_reason_than_a_second_unscaling_is_not_silenced() -> None:
    class Full(torch.amp.GradScaler):
        def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
            raise torch.OutOfMemoryError("no memory")

    model, attached = attach("rigl", update_every=2, density=0.3)
    optimizer = sgd(attached)
    train(model, attached, optimizer, 2)  # the third step is an update, which reads unscaled gradients
    scaler = Full("cpu", init_scale=8.0)
    scaler.scale(F.cross_entropy(model(X), Y)).backward()
    with pytest.raises(torch.OutOfMemoryError):
        attached.step(scaler.step)


@pytest.mark.parametrize("unscaled", [False, True])
def test_rigl_trains_with_a_scaler_that_was_not_asked_to_unscale(unscaled: bool) -> None:
    """Its update takes the place of the optimizer's step, and the scaler wants gradients that were looked at."""
    model, attached = attach("rigl", update_every=2, density=0.3)
    optimizer, scaler = sgd(attached), torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(6):
        scaler.scale(F.cross_entropy(model(X), Y)).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        attached.step(scaler.step)
        scaler.update()
        optimizer.zero_grad()
    assert attached.density() == pytest.approx(0.3, abs=0.01)


def test_after_step_sees_unscaled_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model, attached = attach("granet", density=0.3, update_every=1)  # grows by the gradients of every step
    optimizer, scaler, seen = sgd(attached), torch.amp.GradScaler("cpu", init_scale=1024.0), []
    weight = model[0].weight
    monkeypatch.setattr(type(attached.method), "after_step", lambda *_: seen.append(weight.grad.clone()))
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(X), Y), [weight])
    scaler.scale(F.cross_entropy(model(X), Y)).backward()
    attached.step(scaler.step)
    scaler.update()
    optimizer.zero_grad()
    assert torch.equal(seen[0], gradient)


@pytest.mark.parametrize("kind", [torch.optim.SGD, Clearing])
def test_a_group_that_was_added_later_is_trained(kind: type[torch.optim.SGD]) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    attached = methods.attach(
        model, "set", total_steps=20, steps_per_epoch=5, include=["0", "2"], density=0.3, update_every=2
    )
    optimizer = kind(attached.parameter_groups(weight_decay=0), lr=0.1)
    attached.bind(optimizer)
    train(model, attached, optimizer, 2)
    model[0].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[0].parameters())})
    before = attached.masks()["0.weight"]
    assert not train(model, attached, optimizer, 4)
    assert not torch.equal(attached.masks()["0.weight"], before)


def test_a_group_that_was_replaced_by_one_of_equal_size_is_trained() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    attached = methods.attach(model, "set", total_steps=20, steps_per_epoch=5, include=["0", "1"], density=0.3)
    optimizer = sgd(attached)
    model.requires_grad_(True)
    model[1].requires_grad_(False)
    optimizer.param_groups[0]["params"] = list(model[0].parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(4, 8)).square().sum().backward()
        attached.step()


def test_what_an_optimizer_lacks_is_told_once() -> None:
    model, attached = attach("set")
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    attached.bind(optimizer)
    (told,) = train(model, attached, optimizer, 3)
    assert told.startswith("the optimizer does not train 2.weight")
    optimizer.add_param_group({"params": [model[2].bias]})
    assert not train(model, attached, optimizer, 3)


def test_top_kast_trains_a_model_that_is_cast_after_attach() -> None:
    model, attached = attach("top_kast")
    model.to(torch.bfloat16)
    attached.bind(torch.optim.SGD(attached.parameter_groups(weight_decay=0), lr=0.1))
    (F.cross_entropy(model(X.bfloat16()).float(), Y) + attached.penalty()).backward()
    attached.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
