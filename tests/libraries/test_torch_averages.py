"""Averages of weights by torch.optim.swa_utils."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, sgd, train
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import methods

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


@pytest.mark.parametrize("method", ["static", "set", "dst"])
@pytest.mark.parametrize("kind", ["average", "ema"])
def test_an_average_evaluates_and_is_finalized_sparse(kind: str, method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    attached = attach(model, method, steps=8)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9) if kind == "ema" else None)
    optimizer = sgd(attached)
    for _ in range(6):
        train(attached, optimizer, lambda: F.cross_entropy(model(X), Y), steps=1)
        average.update_parameters(model)
    update_bn([X], average)
    average.eval()
    expected = average(X)
    methods.finalize(average)
    torch.testing.assert_close(average(X), expected, rtol=1e-5, atol=1e-6)
    if method != "dst":  # thresholds are averaged too, and prune the average by themselves
        for name, mask in attached.masks().items():
            assert not average.module.get_parameter(name)[~mask].any()
    assert set(average.module.state_dict()) == {key for key in model.state_dict() if "threshold" not in key}
    train(attached, optimizer, lambda: F.cross_entropy(model(X), Y), steps=1)
