"""torchvision's networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, check_sparse, library, sgd, train

import methods

torchvision = library("torchvision")
X, Y = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)


@pytest.mark.parametrize("method", ["set", "dst"])
def test_resnet18_is_covered_and_trains(method: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    attached = attach(model, method)
    assert attached.coverage().share == 1.0
    train(attached, sgd(attached, lr=0.01), lambda: F.cross_entropy(model(X), Y))
    check_sparse(model, attached)
    model.eval()
    expected, keys = model(X), set(torchvision.models.resnet18(num_classes=10).state_dict())
    methods.finalize(model)
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(model(X), expected, rtol=1e-5, atol=1e-5)


def test_resnet18_is_compacted() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    attached = attach(model, "static")
    masks = attached.masks()
    masks["layer1.0.conv1.weight"][:8] = False  # eight filters of the first block
    attached.set_masks(masks)
    train(attached, sgd(attached, lr=0.01), lambda: F.cross_entropy(model(X), Y), steps=1)
    model.eval()
    expected, numbers = model(X), sum(p.numel() for p in model.parameters())
    methods.finalize(model, compact=True)
    assert sum(p.numel() for p in model.parameters()) < numbers
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)


def test_a_vision_transformer_trains_through_its_attention() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    torch.nn.init.normal_(model.heads.head.weight)  # torchvision starts it at 0
    attached = attach(model, "dst")
    assert attached.coverage().share > 0.9
    train(attached, sgd(attached), lambda: F.cross_entropy(model(X), Y))
    check_sparse(model, attached)
    model.eval()
    expected = model(X)
    methods.finalize(model)
    torch.testing.assert_close(model(X), expected, rtol=1e-5, atol=1e-5)
