"""Methods that drop and grow weights do not touch layers without a gradient."""

from __future__ import annotations

import pytest
import torch
from attached_model import Block, backward, sgd
from torch import nn

import methods
from methods import registry
from methods.drop_grow import Rewiring

EXACT = [
    name
    for name in registry.available()
    if issubclass(kind := registry.method_class(name), Rewiring) and kind.density_promise == "exact"
]


@pytest.mark.parametrize("name", EXACT)
def test_a_layer_without_a_gradient_keeps_its_mask_and_weights(name: str) -> None:
    torch.manual_seed(0)
    model = Block()
    model.unused = nn.Linear(8, 8)
    every = {"update_every": 2} if "update_every" in registry.method_class(name).hyperparameter_names() else {}
    attached = methods.attach(model, name, total_steps=200, steps_per_epoch=2, density=0.4, **every)
    sgd(attached, lr=0.5)
    start, weight = attached.masks(), model.unused.weight.detach().clone()
    for _ in range(24):
        backward(model, attached)
        attached.step()
    masks = attached.masks()
    assert torch.equal(masks["unused.weight"], start["unused.weight"])
    assert torch.equal(model.unused.weight, weight)
    assert any(not torch.equal(mask, start[name]) for name, mask in masks.items())
