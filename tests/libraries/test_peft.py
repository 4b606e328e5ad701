"""Adapters of peft on models that carry a method, and methods on models with adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, check_sparse, library, sgd, train
from torch import Tensor, nn

import methods

peft = library("peft")
pytestmark = pytest.mark.slow
X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 16)
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits


def adapted(model: nn.Module) -> Any:
    """The model with an adapter on fc1 that is not 0."""
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False))


def trained(method: str) -> tuple[Network, methods.Attachment]:
    torch.manual_seed(0)
    model = Network()
    attached = attach(model, method, steps=6)
    train(attached, sgd(attached), lambda: F.cross_entropy(model(X), Y))
    return model, attached


@pytest.mark.parametrize("method", ["set", "dst"])
def test_a_finalized_model_is_adapted_and_merged(method: str) -> None:
    """The merge is dense: it is the adapter that adds to the zeros."""
    model, attached = trained(method)
    wrapped = adapted(methods.finalize(model))
    expected = wrapped(X)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged(X), expected, rtol=1e-5, atol=1e-5)
    assert not merged.fc2.weight[~attached.masks()["fc2.weight"]].any()


@pytest.mark.parametrize("method", ["set", "dst"])
def test_an_adapter_trains_beside_a_sparse_weight(method: str) -> None:
    """peft freezes the weight; only the adapter is trained, and the weight below stays as it was."""
    model, attached = trained(method)
    masks, density = attached.masks(), attached.density()
    wrapped = adapted(model)
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(wrapped(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert attached.density() == density
    assert all(torch.equal(mask, masks[name]) for name, mask in attached.masks().items())
    expected = wrapped(X)
    methods.finalize(wrapped)
    torch.testing.assert_close(wrapped(X), expected, rtol=1e-5, atol=1e-5)
    assert not model.fc1.base_layer.weight[~masks["fc1.weight"]].any()


def test_merging_into_a_masked_weight_keeps_the_mask() -> None:
    """peft writes through `.data`, which the next forward pass cannot see: apply_masks, density and finalize do."""
    model, attached = trained("set")
    pruned = ~attached.masks()["fc1.weight"]
    wrapped = adapted(model)
    wrapped.merge_adapter()
    attached.apply_masks()
    weight = model.fc1.base_layer.weight
    assert not weight[pruned].any()
    assert weight[~pruned].any()
    wrapped.unmerge_adapter()
    merged = wrapped.merge_and_unload()
    check_sparse(merged, attached)
    methods.finalize(merged)
    assert not merged.fc1.weight[pruned].any()


def test_merging_into_a_computed_weight_is_refused() -> None:
    model, _ = trained("dst")
    wrapped = adapted(model)
    expected = wrapped(X)
    with pytest.raises(ValueError, match=r"a change of it would be lost: use attached\.weights\(\)\['fc1\.weight'\]"):
        wrapped.merge_adapter()
    torch.testing.assert_close(wrapped(X), expected, rtol=0, atol=0)
    methods.finalize(wrapped)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged(X), expected, rtol=1e-5, atol=1e-5)


def test_a_method_on_the_frozen_weights_of_an_adapted_model() -> None:
    """Only the adapters are maskable unless `include` names the frozen weights."""
    torch.manual_seed(0)
    frozen = adapted(Network())
    by_default = attach(frozen, "set")
    assert all("lora" in name for name in by_default.masks())
    assert by_default.coverage().aside["base_model.model.fc1.base_layer.weight"] == "frozen"
    wrapped = adapted(Network())
    attached = attach(wrapped, "set", include=["*.base_layer"])
    assert list(attached.masks()) == ["base_model.model.fc1.base_layer.weight"]
    train(attached, sgd(attached), lambda: F.cross_entropy(wrapped(X), Y))
    check_sparse(wrapped, attached)
