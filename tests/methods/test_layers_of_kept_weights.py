"""A layer that holds only its kept weights reads, writes, copies and computes as a dense one does."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kept_weights_loop import DOUBLE, Loop, Net, X, Y, all_sparse, assert_same, linear
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import methods

pytestmark = pytest.mark.usefixtures("cpp_operators")


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
    assert all_sparse(loop.run(1))


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
    """One layer is called twice, another is computed again in the backward pass."""

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
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight were tied since attach"):
        loop.bind()


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


def test_autocast_and_other_inputs() -> None:
    loop = Loop("sparse", net=lambda: Net().float()).bind()
    with torch.autocast("cpu", torch.bfloat16):
        y = loop.model(X.float())
    y.float().sum().backward()
    loop.attached.step()
    assert y.dtype == torch.bfloat16
    assert all_sparse(loop)
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
