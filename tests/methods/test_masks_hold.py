"""Masks in place hold wherever the weights are used, whoever wrote them last."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attached_model import Block, attach, backward, sgd, write_by_copy, write_by_data_assigned, zeros_where_pruned
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import methods


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.full_like(value, 0.5) for name, value in model.state_dict().items()}


def write_by_init(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)


def write_by_vector(model: nn.Module) -> None:
    vector = torch.full_like(nn.utils.parameters_to_vector(model.parameters()), 0.5).detach()
    nn.utils.vector_to_parameters(vector, model.parameters())


def write_by_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.fill_(0.5)


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "load_state_dict": lambda model: model.load_state_dict(dense_weights(model)),
    "load_state_dict, assign": lambda model: model.load_state_dict(dense_weights(model), assign=True),
    "load of one layer": lambda model: [m.load_state_dict(dense_weights(m)) for m in model.modules() if not m._modules],
    "copy_": write_by_copy,
    "nn.init": write_by_init,
    "data =": write_by_data_assigned,
    "vector_to_parameters": write_by_vector,
    "reset_parameters": lambda model: [m.reset_parameters() for m in model.modules() if isinstance(m, nn.Linear)],
}


@pytest.mark.parametrize("write", WRITES)
def test_the_next_forward_pass_is_of_the_sparse_network(write: str) -> None:
    model = Block()
    attached = attach(model, density=0.3)
    WRITES[write](model)
    x = torch.randn(4, 6)
    got = model.eval()(x)
    assert zeros_where_pruned(model, attached)
    assert torch.equal(got, methods.finalize(copy.deepcopy(model))(x))


@pytest.mark.parametrize("write", [*WRITES, "data"])
@pytest.mark.parametrize("read", ["density", "finalize", "apply_masks", "step"])
def test_written_weights_are_masked_before_anything_is_said_of_them(write: str, read: str) -> None:
    model = Block()
    attached = attach(model, density=0.3)
    (WRITES | {"data": write_by_data})[write](model)
    if read == "density":
        assert attached.density() == pytest.approx(0.3, abs=0.01)
    elif read == "finalize":
        methods.finalize(model)
    elif read == "apply_masks":
        attached.apply_masks()
    else:
        sgd(attached)
        attached.step()
    assert zeros_where_pruned(model, attached)


def test_weights_that_are_exchanged_through_data_are_masked_each_time() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "set", density=0.3, update_every=1)
    sgd(attached)
    shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(4):
        backward(model, attached)
        attached.step()
        shadow = {name: 0.9 * shadow[name] + 0.1 * p.detach() for name, p in model.named_parameters()}
        backup = {name: p.data for name, p in model.named_parameters()}
        for values in (shadow, backup):
            for name, parameter in model.named_parameters():
                parameter.data = values[name]
            model(torch.randn(4, 6))
            for name, mask in attached.masks().items():
                assert not model.get_parameter(name)[~mask].any()


def test_a_layer_called_without_its_model_is_sparse() -> None:
    model = Block()
    attached = attach(model, density=0.3)
    write_by_copy(model)
    model.head(torch.randn(2, 8))
    assert torch.equal(model.head.weight != 0, attached.masks()["head.weight"])


@pytest.mark.parametrize("first", ["attached", "model"])
def test_a_state_may_be_loaded_before_or_after_the_models(first: str) -> None:
    model = Block()
    attached = attach(model, density=0.3, seed=1)
    states = attached.state_dict(), copy.deepcopy(model.state_dict())
    other = Block()
    resumed = attach(other, density=0.3, seed=2)
    if first == "attached":
        resumed.load_state_dict(states[0])
        other.load_state_dict(states[1])
    else:
        other.load_state_dict(states[1])
        resumed.load_state_dict(states[0])
    x = torch.randn(4, 6)
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert zeros_where_pruned(other, resumed)


def with_moving_masks(method: str) -> tuple[Block, methods.Attachment]:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method, density=0.3, total_steps=20, **({} if method == "static" else {"update_every": 2}))
    sgd(attached)
    return model, attached


def train(model: Block, attached: methods.Attachment, steps: int) -> None:
    for _ in range(steps):
        backward(model, attached)
        attached.step()


@pytest.mark.parametrize("loads", ["model", "average", "copy"])
@pytest.mark.parametrize("method", ["set", "rigl", "gradual"])
def test_an_earlier_state_that_the_present_masks_prune_is_warned_of(method: str, loads: str) -> None:
    model, attached = with_moving_masks(method)
    average = AveragedModel(model)
    train(model, attached, 5)
    earlier = copy.deepcopy(model.state_dict())
    train(model, attached, 10)
    target = {"model": model, "average": average.module, "copy": copy.deepcopy(model)}[loads]
    with pytest.warns(UserWarning, match=r"masks prune.* load attached\.state_dict\(\) of the same step first"):
        target.load_state_dict(earlier)


@pytest.mark.parametrize("method", ["set", "rigl", "gradual", "static", "top_kast"])
def test_states_that_the_masks_keep_are_loaded_in_silence(method: str, recwarn: pytest.WarningsRecorder) -> None:
    model, attached = with_moving_masks(method)
    model.load_state_dict(dense_weights(model))  # pretrained weights, before training
    train(model, attached, 5)
    snapshot, earlier = copy.deepcopy(model), copy.deepcopy((attached.state_dict(), model.state_dict()))
    train(model, attached, 10)
    snapshot.load_state_dict(model.state_dict())
    attached.load_state_dict(earlier[0])
    model.load_state_dict(earlier[1])
    assert all(torch.equal(value, earlier[1][name]) for name, value in model.state_dict().items())
    fresh, resumed = with_moving_masks(method)
    fresh.load_state_dict(earlier[1])
    resumed.load_state_dict(earlier[0])
    assert not [str(warning.message) for warning in recwarn if "load_state_dict" in str(warning.message)]


# ---- gradients


def test_gradients_of_pruned_weights_are_zero_as_they_arrive() -> None:
    model = Block()
    attached = attach(model, density=0.3)
    for _ in range(2):  # they accumulate
        F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3).backward()
        for name, mask in attached.masks().items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert gradient[mask].any()
            assert not gradient[~mask].any()


def test_methods_that_read_gradients_of_pruned_weights_see_them() -> None:
    model = Block()
    attached = attach(model, "sparse_momentum", density=0.3)
    backward(model, attached)
    mask, gradient = attached.masks()["head.weight"], model.head.weight.grad
    assert gradient is not None
    assert gradient[~mask].any()


def test_an_infinite_gradient_of_a_pruned_weight_does_no_harm() -> None:
    model = Block()
    attached = attach(model, density=0.3)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1)
    attached.bind(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for name, mask in attached.masks().items():
        model.get_parameter(name).grad = torch.where(mask, 0.0, float("inf"))
    attached.step()
    assert zeros_where_pruned(model, attached)


def test_a_method_that_was_taken_off_leaves_no_hooks_and_no_masks() -> None:
    model, seen = Block(), []
    for seed in range(3):
        attached = attach(model, "static", seed=seed, density=0.3)
        sgd(attached)
        backward(model, attached)
        attached.step()
        seen += [weakref.ref(mask) for mask in attached.context.masks.carried().values()]
        methods.finalize(model)
        del attached
    gc.collect()
    assert not any(mask() for mask in seen)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


# ---- loops that evaluate within a step


def test_lbfgs_sees_the_sparse_network_in_every_evaluation() -> None:
    torch.manual_seed(0)
    model = Block().eval()
    attached = attach(model, density=0.5)
    optimizer = torch.optim.LBFGS(attached.parameter_groups(), line_search_fn="strong_wolfe")
    attached.bind(optimizer)
    x, target, sparse = torch.randn(8, 6), torch.arange(8) % 3, []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        sparse.append(all(not model.get_parameter(n)[~mask].any() for n, mask in attached.masks().items()))
        loss.backward()
        return loss

    before = F.cross_entropy(model(x), target).item()
    for _ in range(2):
        attached.step(closure=closure)
    assert len(sparse) > 4
    assert all(sparse)
    assert F.cross_entropy(model(x), target).item() < before / 2


def test_a_functional_call_masks_a_copy_and_leaves_what_it_was_given() -> None:
    model = Block().eval()
    attach(model, density=0.3)
    given = {name: torch.full_like(p, 0.5) for name, p in model.named_parameters()}
    x = torch.randn(4, 6)
    got = torch.func.functional_call(model, given, (x,))
    assert all((value == 0.5).all() for value in given.values())
    write_by_copy(model)
    assert torch.equal(got, model(x))


def test_a_compiled_model_is_sparse_after_loading() -> None:
    model = Block().eval()
    attached = attach(model, density=0.3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 6)
    compiled(x)
    model.load_state_dict(dense_weights(model))
    got = compiled(x)
    assert zeros_where_pruned(model, attached)
    assert torch.allclose(got, model(x), atol=1e-6)


def test_scripting_an_attached_model_says_to_finalize_first() -> None:
    for method in ("static", "dst"):
        model = Block()
        attach(model, method)
        with pytest.raises(RuntimeError, match=r"finalize\(model\) first"):
            torch.jit.script(model)
        torch.jit.script(methods.finalize(model))


# ---- every method


@pytest.mark.parametrize("write", ["load_state_dict", "copy_", "nn.init"])
@pytest.mark.parametrize("method", methods.available())
def test_what_a_model_computes_after_a_write_is_what_it_computes_finalized(method: str, write: str) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method)
    sgd(attached)
    for _ in range(4):
        backward(model, attached)
        attached.step()
    WRITES[write](model)
    x = torch.randn(4, 6)
    got = model.eval()(x)
    density = attached.density()
    plain = methods.finalize(copy.deepcopy(model))
    assert torch.allclose(got, plain(x), atol=1e-6)
    kept = {name: plain.get_parameter(name) != 0 for name in attached.masks()}
    assert sum(int(k.sum()) for k in kept.values()) / sum(k.numel() for k in kept.values()) == density


def test_a_model_that_is_dropped_frees_its_memory() -> None:
    held = {method: trained_and_dropped(method) for method in methods.available()}
    gc.collect()
    assert {method: sum(ref() is not None for ref in refs) for method, refs in held.items()} == dict.fromkeys(held, 0)


def trained_and_dropped(method: str) -> list[weakref.ref[Any]]:
    model = Block()
    attached = attach(model, method)
    optimizer = sgd(attached)
    backward(model, attached)
    attached.step()
    del optimizer
    return [weakref.ref(value) for value in (model, attached, model.head, *model.parameters())]


# ---- what a loop of one's own does beside training


def test_loading_one_layer_leaves_the_others_values_for_set_masks() -> None:
    model = Block()
    dense = model.head.weight.detach().clone()
    attached = attach(model, density=0.3)
    model.load_state_dict({"features.0.weight": torch.ones(8, 6)}, strict=False)
    masks = {name: ~mask for name, mask in attached.masks().items()}
    attached.set_masks(masks)
    assert torch.equal(model.head.weight, dense * masks["head.weight"])


def test_parameters_of_another_model_that_stand_in_are_not_written() -> None:
    model, teacher = Block().eval(), Block().eval()
    attached = attach(model, density=0.3)
    before = copy.deepcopy(teacher)
    x = torch.randn(4, 6)
    got = torch.func.functional_call(model, dict(teacher.named_parameters()), (x,))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before.parameters(), strict=True))
    attached.apply_masks(before)
    assert torch.equal(got, before(x))


class AttentionBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(*[self.encoder(x)] * 3)[0]
        return out


@pytest.mark.parametrize("method", ["static", "dst"])
def test_attention_that_is_called_by_itself_computes_with_masked_weights(method: str) -> None:
    model = AttentionBlock().eval()
    attached = attach(model, method, **({"density": 0.3} if method == "static" else {"alpha": 0.1}))
    for name, threshold in model.named_parameters():
        if name.endswith("_threshold"):
            nn.init.constant_(threshold, 0.6)
    with torch.no_grad():
        for weight in attached.weights().values():
            weight.uniform_(-1, 1)
    x = torch.randn(4, 3, 8)
    with torch.no_grad():
        got = model.encoder(x), model.attention(x, x, x)[0]
        methods.finalize(model)
        torch.testing.assert_close(got, (model.encoder(x), model.attention(x, x, x)[0]))


def test_hooks_of_the_user_see_masked_weights() -> None:
    model, seen = nn.Linear(6, 8), []
    model.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    attached = attach(model, density=0.3)
    write_by_copy(model)
    model(torch.randn(4, 6))
    assert torch.equal(seen[0] != 0, attached.masks()["weight"])
