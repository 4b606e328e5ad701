"""timm's networks and its averages of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, check_sparse, library, sgd, train
from torch import nn

import methods

timm = library("timm")
timm_optim, timm_utils = library("timm.optim"), library("timm.utils")
pytestmark = pytest.mark.slow
X, Y = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet10t": {"num_classes": 10},
    "vit_tiny_patch16_224": {"num_classes": 10, "img_size": 32, "depth": 2, "embed_dim": 48},
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False, **NETWORKS[name])
    return model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["set", "dst"])
def test_a_network_trains_and_is_finalized(name: str, method: str) -> None:
    model = network(name)
    attached = attach(model, method, initial_threshold=-1e-3) if method == "dst" else attach(model, method)
    assert attached.coverage().share > 0.9
    train(attached, sgd(attached, lr=0.01), lambda: F.cross_entropy(model(X), Y))
    check_sparse(model, attached)
    model.eval()
    expected = model(X)
    methods.finalize(model)
    assert set(model.state_dict()) == set(network(name).state_dict())
    torch.testing.assert_close(model(X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("average", ["ModelEmaV2", "ModelEmaV3"])
def test_an_average_evaluates_sparse(average: str) -> None:
    """SET moves weights: what the average holds of dropped ones is 0 when it evaluates."""
    model = network("vit_tiny_patch16_224")
    attached = attach(model, "set")
    ema = getattr(timm_utils, average)(model, decay=0.9)
    optimizer = sgd(attached)
    for _ in range(4):
        train(attached, optimizer, lambda: F.cross_entropy(model(X), Y), steps=1)
        ema.update(model)
    dropped = {name: ~mask for name, mask in attached.masks().items()}
    assert any(ema.module.get_parameter(name)[pruned].any() for name, pruned in dropped.items())
    ema.module.eval()
    expected = ema.module(X)
    assert not any(ema.module.get_parameter(name)[pruned].any() for name, pruned in dropped.items())
    methods.finalize(ema.module)
    torch.testing.assert_close(ema.module(X), expected, rtol=0, atol=0)
    check_sparse(model, attached)  # the model itself is still attached
    train(attached, optimizer, lambda: F.cross_entropy(model(X), Y), steps=1)


@pytest.mark.parametrize("method", ["set", "sparse_momentum"])
def test_lookahead_moves_weights_and_clears_the_state_of_grown_ones(method: str) -> None:
    """timm's Lookahead wraps the optimizer that has the state, and torch's hooks are not called for it."""
    model = network("vit_tiny_patch16_224")
    attached = attach(model, method)
    optimizer = timm_optim.create_optimizer_v2(attached.parameter_groups(), opt="lookahead_adamw", lr=1e-3)
    attached.bind(optimizer)
    before = attached.masks()
    train(attached, optimizer, lambda: F.cross_entropy(model(X), Y), steps=2)
    assert attached.context.step == 2
    grown = {name: mask & ~before[name] for name, mask in attached.masks().items()}
    assert sum(int(mask.sum()) for mask in grown.values()) > 0
    for name, mask in grown.items() if method == "set" else ():  # sparse_momentum keeps it, by its grown_state
        state = optimizer._base_optimizer.state[model.get_parameter(name)]
        assert not state["exp_avg"][mask].any()
        assert state["exp_avg"].any()
