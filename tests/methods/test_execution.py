"""Layers that hold kept weights only train as dense ones with masks do, or are refused by name."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import methods
from methods import execution as executions
from methods import kernels

DOUBLE = torch.float64
X = torch.randn(16, 20, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 10
ELEMENTWISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop")


@pytest.fixture(autouse=True)
def _needs_the_operators() -> None:
    if reason := kernels.missing("cpp"):
        pytest.skip(reason)
    if kernels.path("cpu") != "cpp":
        pytest.skip("other kernels are requested")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(20, 30, dtype=DOUBLE)
        self.b = nn.Linear(30, 24, dtype=DOUBLE)
        self.c = nn.Linear(24, 10, dtype=DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
        return y


class Loop:
    """A training with one execution. `finish` gives everything that has to be equal."""

    def __init__(self, execution: Any, method: str = "set", net: Callable[[], nn.Module] = Net, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = net()
        self.execution = execution
        options = {"density": 0.2, "total_steps": 24, "steps_per_epoch": 3} | options
        self.attached = methods.attach(
            self.model, method, execution=execution, train_batches=lambda: [(X, Y)], **options
        )

    def bind(self, make: Callable[..., torch.optim.Optimizer] | None = None) -> Loop:
        self.make = make or (lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True))
        self.optimizer = self.make(self.attached.parameter_groups(weight_decay=1e-3))
        self.attached.bind(self.optimizer)
        return self

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model(X), Y)

    def step(self, add: Callable[[], Tensor] | None = None) -> None:
        self.optimizer.zero_grad()
        extra = add() if add is not None else 0.0  # before the forward pass
        (self.loss() + extra).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        if self.attached.step() and self.attached.phase.new_optimizer:
            self.bind(self.make)

    def run(self, steps: int) -> Loop:
        for _ in range(steps):
            self.step()
        return self

    def state(self) -> dict[str, Any]:
        parts = {"attached": self.attached, "model": self.model, "optimizer": self.optimizer}
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)  # type: ignore[attr-defined]
        file.seek(0)
        state: dict[str, Any] = torch.load(file, weights_only=True)
        return state

    def load(self, state: dict[str, Any]) -> Loop:
        self.attached.load_state_dict(state["attached"])
        self.model.load_state_dict(state["model"])
        self.bind()
        self.optimizer.load_state_dict(state["optimizer"])
        return self

    def finish(self) -> list[Tensor]:
        masks = list(self.attached.masks().values())
        return masks + [value.clone() for value in methods.finalize(self.model).state_dict().values()]


def linear(attached_model: nn.Module, name: str = "a") -> nn.Linear:
    layer = attached_model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def assert_same(way: Callable[[Any], list[Tensor]], *, tolerance: float = 1e-9) -> None:
    """The tensors that a way of training gives with kept weights only are those of dense execution."""
    for dense, sparse in zip(way("dense"), way("sparse"), strict=True):
        assert dense.shape == sparse.shape
        torch.testing.assert_close(sparse.detach(), dense.detach(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ["static", "set", "dsr", "rigl", "deep_r", "prune_finetune", "lottery", "gradual"])
def test_training_is_that_of_dense_execution(method: str) -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution, method, total_steps=12).bind()
        assert execution == "dense" or method in ("prune_finetune", "lottery", "gradual") or _all_sparse(loop)
        return loop.run(loop.attached.total_steps).finish()

    assert_same(way)


def _all_sparse(loop: Loop) -> bool:
    return set(loop.attached.executions().values()) == {"sparse"}


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
    assert _all_sparse(loop.run(1))
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


@pytest.mark.parametrize("name", ["zeros_", "normal_", "xavier_uniform_", "kaiming_normal_", "orthogonal_"])
def test_initialisation_through_the_layer(name: str) -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(3)
        torch.manual_seed(3)
        getattr(nn.init, name)(linear(loop.model).weight)
        linear(loop.model, "b").reset_parameters()
        return loop.run(2).finish()

    assert_same(way)


@pytest.mark.parametrize(
    "write", [lambda w: w.mul_(2), lambda w: w.data.mul_(2), lambda w: w.__setitem__(0, 1), lambda w: w.copy_(w * 2)]
)
def test_a_write_that_would_be_lost_is_refused(write: Callable[[Tensor], Any]) -> None:
    loop = Loop("sparse").bind()
    with torch.no_grad(), pytest.raises(ValueError, match=r"attached.set_weights.*execution='dense'"):
        write(linear(loop.model).weight)
    with torch.no_grad(), pytest.raises(ValueError, match=r"attached.set_weights.*execution='dense'"):
        write(loop.attached.weights()["a.weight"])
    with torch.no_grad(), pytest.raises(ValueError, match=r"attached.set_weights.*execution='dense'"):
        write(loop.model.state_dict()["a.weight"])


def test_the_weights_of_an_attachment_are_differentiable_and_can_be_saved() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(4)
        file = io.BytesIO()
        torch.save(loop.attached.weights(), file)
        file.seek(0)
        found = [*torch.load(file, weights_only=True).values(), *copy.deepcopy(loop.attached.weights()).values()]
        assert {type(value) for value in torch.load(io.BytesIO(file.getvalue())).values()} <= {Tensor, nn.Parameter}
        for _ in range(4):
            loop.step(lambda: 0.1 * torch.stack([w.abs().sum() for w in loop.attached.weights().values()]).sum())
        return found + loop.finish()

    assert_same(way)
    with pytest.raises(ValueError, match=r"attached.parameter_groups\(\)"):
        torch.optim.SGD(list(Loop("sparse").bind().attached.weights().values()), lr=0.1)


def test_set_weights_keeps_pruned_weights_at_zero() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(3)
        loop.attached.set_weights({name: torch.ones_like(w) for name, w in loop.attached.weights().items()})
        return [*copy.deepcopy(loop.model).state_dict().values(), *loop.run(2).finish()]

    assert_same(way)
    with pytest.raises(ValueError, match=r"a.weight are \[3\], not \[30, 20\]"):
        Loop("sparse").bind().attached.set_weights({"a.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"a.weight are list, not \[30, 20\]"):
        Loop("sparse").bind().attached.set_weights({"a.weight": [1.0]})  # type: ignore[dict-item]


def test_a_copy_keeps_its_masks_until_it_is_written_to() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(4)
        copied = copy.deepcopy(loop.model)
        outputs = [copied(X)]
        loop.run(6)
        outputs.append(copied(X))
        with torch.no_grad():
            linear(copied).weight.mul_(2)
        return [*outputs, copied(X), *loop.finish(), *methods.finalize(copied).state_dict().values()]

    assert_same(way)


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), _saved])
def test_copies_and_pickles_are_layers_of_torch_that_train_and_finalize(again: Callable[[Any], nn.Module]) -> None:
    def way(execution: Any) -> list[Tensor]:
        model = again(Loop(execution).bind().run(2).model)
        assert type(linear(model)) is nn.Linear
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return [model(X), *methods.finalize(model).state_dict().values()]

    assert_same(way)


def test_a_model_copied_with_its_optimizer_goes_on_training() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(2)
        model, optimizer = copy.deepcopy((loop.model, loop.optimizer))
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return [model(X), *model.state_dict().values()]

    assert_same(way)
    loop = Loop("sparse").bind()
    with pytest.raises(ValueError, match="copy the model before its optimizer"):
        copy.deepcopy((loop.optimizer, loop.model))
    with pytest.raises(ValueError, match=r"cannot be copied or pickled: save its state_dict\(\)"):
        copy.deepcopy(loop.attached)


@pytest.mark.parametrize("execution", ["sparse", "auto"])
def test_averaged_models_of_torch_are_refused_and_averages_of_weights_are_right(execution: Any) -> None:
    with pytest.raises(ValueError, match=r"average the model's state_dict\(\), or use execution='dense'"):
        AveragedModel(Loop(execution).model)
    with pytest.raises(ValueError, match=r"average the model's state_dict\(\), or use execution='dense'"):
        AveragedModel(Loop(execution).bind().model)

    def way(how: Any) -> list[Tensor]:
        loop = Loop(how, "static").bind()
        average = copy.deepcopy(loop.model)
        for _ in range(4):
            loop.step()
            for value, now in zip(average.state_dict().values(), loop.model.state_dict().values(), strict=True):
                value.lerp_(now, 0.3)
        return [average(X)]

    assert_same(way)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_becomes_another_type_is_dense(dtype: torch.dtype) -> None:
    loop = Loop("sparse").bind().run(2)
    loop.model.to(dtype)
    for _ in range(2):
        loop.optimizer.zero_grad()
        F.cross_entropy(loop.model(X.to(dtype)).float(), Y).backward()  # type: ignore[no-untyped-call]
        loop.attached.step()
    assert set(loop.attached.executions().values()) == {"dense"}
    loop.model.to(DOUBLE)
    assert _all_sparse(loop.run(1))


def test_weights_in_shared_memory_views_and_weights_with_hooks_stay_what_they_are() -> None:
    def way(execution: Any) -> list[Tensor]:
        def net() -> nn.Module:
            model = Net()
            linear(model).weight.register_hook(lambda gradient: gradient * torch.arange(20, dtype=DOUBLE))
            flat = torch.zeros(2, 24, 30, dtype=DOUBLE)
            flat[0] = linear(model, "b").weight.detach()
            linear(model, "b").weight.data = flat[0]
            linear(model, "c").share_memory()
            return model

        loop = Loop(execution, net=net).bind().run(6)
        assert linear(loop.model, "c").weight.is_shared()
        assert set(loop.attached.executions().values()) == {"dense"}
        return loop.finish()

    assert_same(way)


class Twice(nn.Module):
    """One layer is called twice, and another lies in a part that is computed again in the backward pass."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.a = nn.Linear(20, 20, dtype=DOUBLE)
        self.inner = Net()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(F.relu(self.a(x)))
        y: Tensor = checkpoint(self.inner, hidden, use_reentrant=self.reentrant)
        return y


class Encoder(nn.Module):
    """torch's own encoder layer, which computes by another path in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(20, 4, 32, dropout=0.0, batch_first=True, dtype=DOUBLE)
        self.a = nn.Linear(20, 10, dtype=DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(self.encoder(x[:, None])[:, 0])
        return y


class Subclass(Net):
    """One layer is no Linear of torch: it stays dense."""

    def __init__(self) -> None:
        super().__init__()
        self.b = type("Own", (nn.Linear,), {})(30, 24, dtype=DOUBLE)


@pytest.mark.parametrize("net", [lambda: Twice(reentrant=True), lambda: Twice(reentrant=False), Encoder, Subclass])
def test_networks(net: Callable[[], nn.Module]) -> None:
    def way(execution: Any) -> list[Tensor]:
        loop, outputs = Loop(execution, net=net).bind(), []
        for _ in range(5):
            loop.run(1).model.eval()
            with torch.no_grad():
                outputs.append(loop.model(X))
            loop.model.train()
        return outputs + loop.finish()

    assert_same(way)


def test_weights_that_become_one_tensor_are_refused() -> None:
    loop = Loop("sparse", net=lambda: nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20)))
    linear(loop.model, "0").weight = linear(loop.model, "1").weight
    with pytest.raises(ValueError, match=r"one tensor.*execution='dense'"):
        loop.bind()


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


def test_functions_of_torch_func_and_second_derivatives() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(3)
        model, call = loop.model, torch.func.functional_call
        held = {name: value.clone() for name, value in model.state_dict().items()}
        stacked = {name: torch.stack([value, 2 * value]) for name, value in held.items()}
        found = list(torch.func.grad(lambda p: F.cross_entropy(call(model, p, (X,)), Y))(held).values())
        found += [call(model, dict(model.named_parameters()), (X,)), *torch.func.jvp(model, (X,), (X.cos(),))]
        found += [torch.func.vmap(lambda p: call(model, p, (X,)))(stacked), torch.func.jacrev(model)(X[0])]
        x = X.clone().requires_grad_()
        (of_x,) = torch.autograd.grad(F.cross_entropy(model(x), Y), x, create_graph=True)
        loop.optimizer.zero_grad()
        of_x.pow(2).sum().backward()
        loop.attached.step()
        return found + loop.finish()

    assert_same(way)


def test_a_compiled_model() -> None:
    def way(execution: Any) -> list[Tensor]:
        loop = Loop(execution).bind().run(1)
        compiled = torch.compile(loop.model, backend="aot_eager", fullgraph=True)
        for _ in range(4):
            loop.optimizer.zero_grad()
            F.cross_entropy(compiled(X), Y).backward()
            loop.attached.step()
        return [compiled(X), torch.export.export(loop.model, (X,)).module()(X), *loop.finish()]

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


def test_autocast_and_other_inputs() -> None:
    loop = Loop("sparse", net=lambda: Net().float()).bind()
    with torch.autocast("cpu", torch.bfloat16):
        y = loop.model(X.float())
    y.float().sum().backward()
    loop.attached.step()
    assert y.dtype == torch.bfloat16
    assert _all_sparse(loop)
    with pytest.raises(RuntimeError, match="same dtype"):
        loop.model(X.bfloat16())


def test_finalized_layers_with_kept_weights_only_compute_the_same_and_come_back() -> None:
    loop = Loop("sparse").bind().run(4)
    model, before = loop.model, loop.model(X).detach()
    methods.finalize(model, execution="sparse")
    state = copy.deepcopy(model.state_dict())
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        n: tuple(p.shape) for n, p in Net().state_dict().items()
    }
    again = [model, copy.deepcopy(model), _saved(model), methods.finalize(copy.deepcopy(model), compact=True)]
    for one in again:
        torch.testing.assert_close(one(X), before, rtol=0, atol=1e-9)
    with torch.inference_mode():
        torch.testing.assert_close(model(X), before, rtol=0, atol=1e-9)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    F.cross_entropy(model(X), Y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert all(bool((model.state_dict()[name][value == 0] == 0).all()) for name, value in state.items())
    model.load_state_dict(state)
    assert type(linear(model)) is nn.Linear
    torch.testing.assert_close(model(X), before, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="valid: dense, sparse"):
        methods.finalize(model, execution="auto")  # type: ignore[arg-type]


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
