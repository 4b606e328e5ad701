"""A density that leaves no weight is refused when the method is attached, whichever way it counts."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import methods
from methods.registry import method_class

WITH_DENSITY = [name for name in methods.available() if "density" in method_class(name).hyperparameter_names()]


def attach(name: str, density: float, **given: Any) -> tuple[nn.Module, methods.Attachment]:
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    batch = (torch.randn(8, 12), torch.arange(8) % 4)
    settings: dict[str, Any] = {"total_steps": 20, "steps_per_epoch": 4, "train_batches": lambda: [batch]}
    return model, methods.attach(model, name, density=density, **settings, **given)


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_a_density_that_keeps_nothing_is_refused_by_name_with_the_least_one_that_works(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*(none|too few|fewer)") as refused:
        attach(name, 1e-4)
    least = re.search(r"; give a density of at least (\S+)$", str(refused.value))
    assert least is not None, refused.value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attach(name, float(least[1]))
    with pytest.raises(ValueError, match=rf"^{name}: .*(none|too few|fewer)"):
        attach(name, 0.99 * float(least[1]))


PRUNE_OVER_ALL_LAYERS: dict[str, dict[str, Any]] = {
    "acdc": {}, "granet": {"update_every": 4}, "lottery": {"prune_fraction": 0.9},
}  # fmt: skip


@pytest.mark.parametrize(("name", "given"), PRUNE_OVER_ALL_LAYERS.items())
def test_a_layer_that_loses_its_last_weight_in_the_training_is_named(name: str, given: dict[str, Any]) -> None:
    """Its weights are a millionth of those of the other layer."""
    model, attached = attach(name, 0.05, **given)
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(1e-6)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while attached.context.step < attached.total_steps:
            model(torch.randn(8, 12)).square().mean().backward()
            attached.step()
        said = [str(one.message) for one in caught]
    assert any(re.search(rf"^{name}: 2\.weight keeps no weight at density 0\.", text) for text in said), said
    assert not attached.masks()["2.weight"].any()


def test_layers_that_keep_a_weight_only_because_none_may_be_empty_are_named() -> None:
    """Two of 256 weights are kept, one in each layer. The share of the last layer is 0.384 weights."""
    with pytest.warns(
        UserWarning, match=r"^static: density 0\.006 leaves less than half a weight for 2\.weight: every"
    ):
        _, attached = attach("static", 0.006, allocation="uniform")
    assert attached.kept_counts().tolist() == [1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, attached = attach("static", 0.008, allocation="uniform")  # 0.512 of its 64
    assert attached.kept_counts().tolist() == [1, 1]
