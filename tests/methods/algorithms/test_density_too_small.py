"""A density that leaves no weight is refused when the method is attached, whichever way it counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import methods
from methods.registry import method_class

WITH_DENSITY = [name for name in methods.available() if "density" in method_class(name).hyperparameter_names()]


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_a_density_that_keeps_nothing_is_refused_by_name(name: str) -> None:
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    batch = (torch.randn(8, 12), torch.arange(8) % 4)
    with pytest.raises(ValueError, match=rf"^{name}: .*(none|too few|fewer)"):
        methods.attach(model, name, total_steps=20, steps_per_epoch=4, train_batches=lambda: [batch], density=1e-4)
    assert all(parameter.all() for parameter in model.parameters())
