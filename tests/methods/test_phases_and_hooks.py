"""Phases of a training, and the hooks that a method runs in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from attached_model import Block, TwoPhases, attach, backward, sgd
from torch import Tensor

from methods import Context, Method, Phase


def test_step_returns_true_where_a_phase_begins_and_total_steps_sums_them() -> None:
    model = Block()
    attached = attach(model, TwoPhases(), total_steps=4)
    assert attached.total_steps == 7
    began = []
    optimizer = sgd(attached)
    for _ in range(attached.total_steps):
        assert attached.phase.name == ("sparse" if any(began) else "dense")
        assert (attached.density() < 1) == any(began)
        backward(model, attached)
        began.append(attached.step())
        if began[-1]:
            assert attached.phase == Phase("sparse", 3, new_optimizer=True, lr=0.01)
            optimizer = sgd(attached, lr=attached.phase.lr)
    assert began == [False, False, False, True, False, False, False]
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_a_phase_resumes_without_being_entered_again() -> None:
    model = Block()
    attached = attach(model, TwoPhases(), total_steps=1)
    sgd(attached)
    backward(model, attached)
    assert attached.step()
    fresh = Block()
    resumed = attach(fresh, TwoPhases(), total_steps=1)
    resumed.load_state_dict(attached.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert resumed.phase.name == "sparse"
    assert all(torch.equal(mask, attached.masks()[name]) for name, mask in resumed.masks().items())
    sgd(resumed)
    backward(fresh, resumed)
    assert resumed.step() is False


def test_a_phase_without_steps_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"two_phases has a phase without steps in a training of 6: .*'sparse'"):
        attach(Block(), TwoPhases(sparse_steps=0))


# ---- hooks


class Recorder(Method):
    """Writes down what its hooks see; replaces every second update."""

    name = "recorder"
    version = 1
    reference = "none"
    density_promise = "dense"

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool, float | None]] = []

    def note(self, hook: str, ctx: Context) -> None:
        has_gradients = all(weight.parameter.grad is not None for weight in ctx.weights.values())
        self.seen.append((hook, ctx.step, has_gradients, ctx.lr if ctx.optimizer else None))

    def enter_phase(self, ctx: Context) -> None:
        self.note("enter_phase", ctx)

    def after_backward(self, ctx: Context) -> bool:
        self.note("after_backward", ctx)
        return ctx.step % 2 == 0

    def after_step(self, ctx: Context) -> None:
        self.note("after_step", ctx)


def test_hooks_run_in_order_and_may_replace_the_optimizers_step() -> None:
    model, method = Block(), Recorder()
    attached = attach(model, method)
    sgd(attached)
    moved = []
    for _ in range(2):
        before = model.head.bias.detach().clone()
        backward(model, attached)
        attached.step()
        moved.append(not torch.equal(model.head.bias, before))
    assert moved == [True, False]
    assert method.seen == [
        ("enter_phase", 0, False, None),
        ("after_backward", 0, True, 0.1),
        ("after_step", 1, True, 0.1),
        ("after_backward", 1, True, 0.1),
        ("after_step", 2, True, 0.1),
    ]


class ForgetsToAnswer(Recorder):
    def after_backward(self, ctx: Context) -> bool:
        """Falls off the end."""
        return None  # type: ignore[return-value]


def test_a_hook_that_does_not_say_whether_the_optimizer_steps_is_named() -> None:
    model = Block()
    attached = attach(model, ForgetsToAnswer())
    sgd(attached)
    backward(model, attached)
    with pytest.raises(TypeError, match="recorder: after_backward returned None: it must return True, or False"):
        attached.step()


class ScoresOnData(Method):
    name = "scores_on_data"
    version = 1
    reference = "none"
    density_promise = "dense"

    def enter_phase(self, ctx: Context) -> None:
        x, target = next(iter(ctx.train_batches()))
        self.score = ctx.loss_fn(ctx.model(x), target).item()


def test_methods_that_score_on_data_get_train_batches_and_loss_fn() -> None:
    method = ScoresOnData()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.ones(2, 6), torch.zeros(2, 3)

    model = Block().eval()
    attach(model, method, train_batches=batches, loss_fn=F.mse_loss)
    assert method.score == pytest.approx(F.mse_loss(model(torch.ones(2, 6)), torch.zeros(2, 3)).item())


def test_scoring_on_data_without_any_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"this method scores on data: give attach\(train_batches=\.\.\.\)"):
        attach(Block(), ScoresOnData(), train_batches=None)
