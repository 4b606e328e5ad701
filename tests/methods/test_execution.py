"""Training with kept weights only is that of dense layers with masks, or is refused by name."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kept_weights_loop import DOUBLE, Loop, Net, X, Y, all_sparse, assert_same, linear
from torch import Tensor, nn

import methods
from methods import execution as executions

ELEMENTWISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop")
pytestmark = pytest.mark.usefixtures("cpp_operators")


@pytest.mark.parametrize("method", ["static", "set", "dsr", "rigl", "deep_r", "prune_finetune", "lottery", "gradual"])
def test_training_is_that_of_dense_execution(method: str) -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, method, total_steps=12).bind()
        assert execution == "dense" or method in ("prune_finetune", "lottery", "gradual") or all_sparse(loop)
        return loop.run(loop.attached.total_steps).finish()

    assert_same(way)


@pytest.mark.parametrize("options", [{}, {"foreach": True}])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_optimizers_that_work_by_element(name: str, options: dict[str, bool]) -> None:
    make = getattr(torch.optim, name)
    assert_same(lambda how: Loop(how).bind(lambda groups: make(groups, lr=0.01, **options)).run(8).finish())


@pytest.mark.parametrize("name", ["Adafactor", "LBFGS", "SparseAdam", "Muon"])
def test_other_optimizers_are_refused_by_name(name: str) -> None:
    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        trained = [p for p in groups[0]["params"] if p.ndim == 2]
        optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(trained)
        return optimizer

    with pytest.raises(ValueError, match=f"{name} is none of SGD.*use execution='dense'"):
        Loop("sparse").bind(make)
    assert set(Loop("auto").bind(make).attached.executions().values()) == {"dense"}


def test_an_optimizer_of_another_library_is_refused_by_name() -> None:
    class Own(torch.optim.SGD):
        pass

    with pytest.raises(ValueError, match="Own is none of"):
        Loop("sparse").bind(lambda groups: Own(groups, lr=0.1))


@pytest.mark.parametrize("method", ["dense", "dst", "str", "sparse_momentum", "top_kast", "dns"])
def test_methods_that_train_all_weights_are_refused_by_name(method: str) -> None:
    options = {"total_steps": 6, "steps_per_epoch": 3}
    with pytest.raises(ValueError, match=f"{method} .*use execution='dense'"):
        methods.attach(Net(), method, execution="sparse", **options)
    assert set(methods.attach(Net(), method, execution="auto", **options).executions().values()) == {"dense"}


def test_a_model_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no Linear layer.*execution='dense'"):
        methods.attach(nn.Sequential(nn.Conv2d(3, 8, 3)), "set", total_steps=6, steps_per_epoch=3, execution="sparse")


def test_layers_of_another_type_are_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 4)).bfloat16()
    with pytest.raises(ValueError, match="no Linear layer is in float32 or float64; use execution='dense'"):
        methods.attach(model, "static", total_steps=1, steps_per_epoch=1, density=0.5, execution="sparse")


def test_other_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "path", lambda _: "eager")
    with pytest.raises(ValueError, match=r"kernels are 'eager'.*execution='dense'"):
        Loop("sparse")
    assert set(Loop("auto").bind().run(1).attached.executions().values()) == {"dense"}


def test_auto_chooses_by_the_examples_of_the_first_batch_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(executions, "pays", lambda _, examples, __: asked.append(examples) or True)
    loop = Loop("auto").bind()
    with torch.no_grad():
        loop.model(X[:3])
    assert all_sparse(loop.run(1))
    assert set(asked) == {16}
    dense, auto = Loop("dense").bind().run(8), loop.run(7)
    for one, other in zip(dense.finish(), auto.finish(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert not linear(auto.model)._forward_pre_hooks


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_accumulated_gradients(method: str) -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, method).bind()
        for number in range(9):
            if number % 4 == 0:
                loop.optimizer.zero_grad(set_to_none=False)
            for x, y in zip(X.chunk(4), Y.chunk(4), strict=True):
                (F.cross_entropy(loop.model(x), y) / 4).backward()  # type: ignore[no-untyped-call]
            loop.attached.step()
        return loop.finish()

    assert_same(way)


def test_a_penalty_on_a_weight_before_and_after_the_forward_pass() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind()
        for _ in range(8):
            loop.step(lambda: 0.1 * (linear(loop.model).weight ** 2).sum())
            loop.optimizer.zero_grad()
            loss = loop.loss()
            (loss + 0.1 * linear(loop.model, "b").weight.abs().sum()).backward()
            loop.attached.step()
        return loop.finish()

    assert_same(way)


def test_reading_and_evaluating_between_the_passes_changes_nothing() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind()
        with torch.inference_mode():
            seen = [loop.model(X).clone()]
        for _ in range(6):
            loop.optimizer.zero_grad()
            loss, attached = loop.loss(), loop.attached
            with torch.no_grad():
                seen.append(loop.model.eval()(X[:3]))
            loop.model.train()
            seen += [torch.tensor(attached.density()), attached.kept_counts(), *attached.masks().values()]
            seen += [*map(torch.clone, attached.weights().values()), *copy.deepcopy(loop.model).state_dict().values()]
            loop.state()
            loss.backward()  # type: ignore[no-untyped-call]
            grad = linear(loop.model).weight.grad
            assert grad is not None
            seen.append(grad.clone())
            attached.step()
        return seen + loop.finish()

    assert_same(way)


def test_losses_kept_over_updates_of_the_masks_do_no_harm_and_have_no_backward_pass() -> None:
    loop, kept = Loop("sparse").bind(), []
    for _ in range(7):
        kept.append(loop.loss())
        loop.step()
    for loss in kept:
        with pytest.raises(RuntimeError, match=r"between its forward and backward pass.*execution='dense'"):
            loss.backward()


def test_a_loss_from_before_other_masks_of_equal_count_is_refused() -> None:
    loop = Loop("sparse", "static").bind()
    loss = loop.loss()
    loop.attached.set_masks({name: mask.roll(1, 0) for name, mask in loop.attached.masks().items()})
    with pytest.raises(RuntimeError, match="execution='dense'"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_masks_that_are_set_after_the_backward_pass() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, "static").bind().run(2)
        loop.loss().backward()  # type: ignore[no-untyped-call]
        loop.attached.set_masks({name: mask.roll(1, 0) for name, mask in loop.attached.masks().items()})
        loop.attached.step()
        return loop.run(3).finish()

    assert_same(way)


def test_closures_and_a_gradient_scaler_that_skips() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop, scaler = Loop(execution).bind(), torch.amp.GradScaler("cpu", init_scale=4.0)

        def closure() -> Tensor:
            loop.optimizer.zero_grad()
            loss = loop.loss()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for number in range(6):
            loop.attached.step(closure=closure)
            loop.optimizer.zero_grad()
            scaler.scale(loop.loss() * (float("inf") if number == 2 else 1)).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(loop.optimizer)
            loop.attached.step(scaler.step)
            scaler.update()
        return loop.finish()

    assert_same(way)


def test_groups_by_dimensions_see_matrices_where_a_phase_wants_a_new_optimizer() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, "lottery", total_steps=6)

        def make(_: Any) -> torch.optim.Optimizer:
            parameters = list(loop.model.parameters())
            groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1}]
            return torch.optim.SGD([*groups, {"params": [p for p in parameters if p.ndim < 2]}], lr=0.1)

        return loop.bind(make).run(loop.attached.total_steps).finish()

    assert_same(way)


@pytest.mark.parametrize("pair", [("dense", "sparse"), ("sparse", "dense"), ("sparse", "sparse")])
def test_a_state_goes_on_with_another_execution(pair: tuple[Any, Any]) -> None:
    expected = Loop("dense").bind().run(9)
    state = Loop(pair[0]).bind().run(4).state()
    resumed = Loop(pair[1]).load(state).run(5)
    for one, other in zip(expected.finish(), resumed.finish(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("execution", ["sparse", "auto"])
@pytest.mark.parametrize("method", ["set", "rigl", "gradual", "prune_finetune"])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_resume_has_equal_bits(method: str, execution: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "pays", lambda *_: True)
    loops = [Loop(execution, method, net=lambda: Net().float(), total_steps=12) for _ in range(2)]
    x = X.float()
    for loop in loops:
        loop.loss = lambda loop=loop: F.cross_entropy(loop.model(x), Y)  # type: ignore[method-assign]
    whole = loops[0].bind().run(steps)
    state = whole.state()
    assert all(map(torch.equal, whole.run(4).finish(), loops[1].load(state).run(4).finish()))


def test_an_optimizer_that_is_bound_again_or_loaded_before_it_is_bound() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, "static").bind(lambda groups: torch.optim.Adam(groups, lr=0.01)).run(4)
        first, saved = loop.optimizer, copy.deepcopy(loop.optimizer.state_dict())
        loop.bind().run(4)
        loop.optimizer = torch.optim.Adam(loop.attached.parameter_groups(), lr=0.01)
        loop.optimizer.load_state_dict(saved)
        loop.attached.bind(loop.optimizer)
        loop.run(4).optimizer = first
        loop.attached.bind(first)
        return loop.run(4).finish()

    assert_same(way)


def test_a_checkpoint_loaded_between_steps_and_a_replaced_weight() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(4)
        saved = copy.deepcopy(loop.model.state_dict())
        loop.run(2).model.load_state_dict(saved)
        loop.run(2)
        linear(loop.model).weight = nn.Parameter(torch.ones(30, 20, dtype=DOUBLE))
        with pytest.raises(RuntimeError, match="another tensor since bind"):
            loop.attached.step()
        return loop.bind().run(3).finish()

    assert_same(way)


def test_a_layer_that_is_frozen_for_some_steps_and_an_empty_batch() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, "static").bind().run(2)
        linear(loop.model).requires_grad_(False)
        loop.run(2)
        linear(loop.model).requires_grad_(True)
        loop.model(X[:0]).sum().backward()
        loop.attached.step()
        return loop.run(2).finish()

    assert_same(way)


class Lookahead(torch.optim.Optimizer):
    """A wrapper with state of its own, of the shape of the weights."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, defaultdict(dict)
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)
        self.steps += 1
        for parameter in (p for group in self.param_groups for p in group["params"]):
            slow = self.state[parameter].setdefault("slow", parameter.clone())
            if self.steps % 3 == 0:
                parameter.copy_(slow.lerp_(parameter, 0.5))

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


def test_the_state_of_a_wrapper_around_an_optimizer_follows() -> None:
    assert_same(
        lambda how: Loop(how).bind(lambda groups: Lookahead(torch.optim.Adam(groups, lr=0.01))).run(12).finish()
    )


def test_models_and_attachments_are_freed() -> None:
    loop = Loop("sparse").bind().run(2)
    model, attached = weakref.ref(loop.model), weakref.ref(loop.attached)
    methods.finalize(loop.model)
    assert set(vars(linear(loop.model))) == set(vars(nn.Linear(2, 2)))
    del loop.attached
    loop.optimizer = loop.make([nn.Parameter(torch.zeros(2))])
    gc.collect()
    assert attached() is None
    del loop
    gc.collect()
    assert model() is None


def test_another_default_device_does_no_harm() -> None:
    loop = Loop("sparse").bind()
    with torch.device("meta"):
        loop.run(7)
        loop.state()
    expected = Loop("dense").bind().run(7)
    for one, other in zip(expected.finish(), loop.finish(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_choice_is_validated() -> None:
    with pytest.raises(ValueError, match="execution is 'fast'; valid: dense, sparse, auto"):
        Loop("fast")
