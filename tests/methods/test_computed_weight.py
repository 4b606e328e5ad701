"""Under thresholds a layer's attribute is computed: writing works where it can, or is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from attached_model import attach, sgd
from torch import Tensor, nn

import methods


class Custom(nn.Linear):
    """A layer whose own forward reads the attribute."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert type(self.weight) in (Tensor, nn.Parameter)
        return F.linear(inputs, 2 * self.weight, self.bias)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell, self.custom = nn.Conv2d(2, 3, 3), nn.GRUCell(3, 4), Custom(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.custom(self.cell(self.conv(x).mean((2, 3))))
        return y


def attached_net() -> tuple[Net, methods.Attachment]:
    torch.manual_seed(0)
    model = Net()
    attached = attach(model, "dst")
    for threshold in attached.thresholds().values():
        threshold.fill_(0.1)
    return model, attached


def test_weights_are_the_dense_parameters() -> None:
    model, attached = attached_net()
    weights = attached.weights()
    assert list(weights) == ["conv.weight", "cell.weight_ih", "cell.weight_hh", "custom.weight"]
    own = dict(model.named_parameters())
    assert all(weight is own[name] for name, weight in weights.items())


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "mul_": lambda m: m.weight.mul_(2),
    "data.mul_": lambda m: m.weight.data.mul_(2),
    "data +=": lambda m: m.weight.data.__iadd__(1),
    "detach": lambda m: m.weight.detach().zero_(),
    "a view": lambda m: m.weight[0].fill_(1),
    "a flat view": lambda m: m.weight.view(-1).fill_(1),
    "an item": lambda m: m.weight.__setitem__(0, 1.0),
    "copy_": lambda m: m.weight.copy_(torch.zeros(())),
    "data =": lambda m: setattr(m.weight, "data", torch.zeros(3, 4)),
    "out": lambda m: torch.add(m.weight, 1, out=m.weight),
    "requires_grad_": lambda m: m.weight.requires_grad_(False),
    "an optimizer": lambda m: torch.optim.SGD([m.weight], lr=0.1),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_would_be_lost_is_refused(write: str, grad: bool) -> None:
    model, _ = attached_net()
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(ValueError, match=r"use attached\.weights\(\)\['custom\.weight'\]"),
    ):
        WRITES[write](model.custom)


INITIALISATIONS: dict[str, Callable[[Tensor], object]] = {
    "constant_": lambda w: nn.init.constant_(w, 0.5),
    "uniform_": nn.init.uniform_,
    "kaiming_normal_": nn.init.kaiming_normal_,
    "xavier_uniform_": nn.init.xavier_uniform_,
    "trunc_normal_": lambda w: nn.init.trunc_normal_(w, std=0.2),
    "orthogonal_": nn.init.orthogonal_,
    "zeros_": nn.init.zeros_,
}


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_initialisations_write_the_dense_weight(init: str) -> None:
    model, attached = attached_net()
    plain = Net()
    torch.manual_seed(7)
    INITIALISATIONS[init](plain.custom.weight)
    torch.manual_seed(7)
    INITIALISATIONS[init](model.custom.weight)
    assert torch.equal(attached.weights()["custom.weight"], plain.custom.weight)


@pytest.mark.parametrize("layer", ["conv", "cell", "custom"])
def test_reset_parameters_writes_the_dense_weights_and_leaves_thresholds(layer: str) -> None:
    model, attached = attached_net()
    plain = Net()
    for net in (plain, model):
        torch.manual_seed(7)
        net.get_submodule(layer).reset_parameters()  # type: ignore[operator]
    for name, parameter in plain.get_submodule(layer).named_parameters():
        assert torch.equal(dict(model.get_submodule(layer).named_parameters())[name], parameter)
    assert all((t == torch.full_like(t, 0.1)).all() for t in attached.thresholds().values())


def test_a_recurrent_layer_resets_without_its_thresholds() -> None:
    model = nn.LSTM(3, 4)
    attached = attach(model, "dst")
    model.reset_parameters()
    assert not any(t.any() for t in attached.thresholds().values())


def test_the_attribute_reads_as_the_effective_weight() -> None:
    model, attached = attached_net()
    weight = model.custom.weight
    mask, dense = attached.masks()["custom.weight"], attached.weights()["custom.weight"]
    assert torch.equal(weight, dense * mask)
    assert int((weight != 0).sum()) == int(mask.sum())
    assert weight.detach().numpy().shape == (3, 4)
    assert weight.shape == (3, 4)
    assert float(weight.sum()) == float((dense * mask).sum())
    weight.sum().backward()
    assert dense.grad is not None


@pytest.mark.parametrize("train", [True, False])
def test_outputs_and_gradients_are_those_of_plain_tensors(train: bool) -> None:
    model, attached = attached_net()
    x = torch.randn(2, 2, 5, 5)
    with torch.set_grad_enabled(train):
        outputs = model(x)
    assert type(outputs) is Tensor
    want = methods.finalize(copy.deepcopy(model))(x)
    assert torch.allclose(outputs, want, atol=1e-6)
    if train:
        outputs.sum().backward()
        sgd(attached)
        attached.step()
        assert all(type(p.grad) is Tensor for p in model.parameters())


def test_the_gradient_of_a_computed_weight_is_that_of_its_parameter() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    attached = attach(model, "dst", alpha=0.1)
    assert model[0].weight.grad is None
    model(torch.randn(4, 6)).sum().backward()
    assert model[0].weight.grad is attached.weights()["0.weight"].grad is not None


def test_data_parallel_replicas_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    attach(model, "dst", alpha=0.1)
    with pytest.raises(RuntimeError, match=r"DataParallel cannot copy layers with thresholds"):
        model[0]._replicate_for_data_parallel()  # torch.nn.parallel.replicate calls it, and needs a GPU
