"""Layers that their thresholds prune entirely are named, once, and only where it is true."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_paths import use_kernels
from torch import nn

import methods
from benchmark import models
from benchmark.spec import Model
from methods.checks.dead_layers import ResetWatch
from methods.thresholds import ESTIMATORS, SHAPES


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5))


def attach(model: nn.Module, **values: Any) -> methods.Attachment:
    return methods.attach(model, "dst", **({"total_steps": 40, "steps_per_epoch": 10, "alpha": 1e-2} | values))


def trained(model: nn.Module, attached: methods.Attachment, steps: int) -> None:
    inputs, labels = torch.randn(32, 20), torch.randint(5, (32,))
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.05, momentum=0.9)
    attached.bind(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (F.cross_entropy(model(inputs), labels) + attached.penalty()).backward()
        attached.step()


def test_layers_of_zeros_are_named_when_a_method_is_attached() -> None:
    model = network()
    for i in (2, 4):
        nn.init.zeros_(model[i].weight)
    with pytest.warns(UserWarning, match=r"^2.weight, 4.weight: .* never trains.*initial_threshold=-1e-4") as said:
        attach(model)
    assert len(said) == 1


@pytest.mark.parametrize(("count", "reset_density", "named"), [(8, 0.01, True), (9, 0.01, False), (8, None, False)])
def test_a_layer_that_keeps_less_than_reset_density_is_named(
    count: int, reset_density: float | None, named: bool
) -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.view(-1)[count:] = 0  # of 900 weights, 9 are 1 %
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        attach(model, reset_density=reset_density)
    assert [str(one.message).startswith("2.weight: ") for one in said] == [True] * named


def test_a_recurrent_layer_is_named_only_where_all_its_weights_are_zero() -> None:
    model = nn.LSTM(4, 30)
    with torch.no_grad():
        model.weight_ih_l0.zero_()
        model.weight_hh_l0.view(-1)[1:] = 0
    with pytest.warns(UserWarning, match="^weight_ih_l0: "):
        attach(model)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe", "lstm-a", "wrn-16-8"])
def test_nothing_is_said_of_the_models_of_the_benchmark(name: str) -> None:
    color = name.startswith("wrn")
    model = models.create(Model(name=name), in_shape=(3, 32, 32) if color else (1, 28, 28), classes=10, seed=0)
    attach(model)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_zeros_where_thresholds_start_below_them() -> None:
    model = network()
    nn.init.zeros_(model[4].weight)
    attach(model, initial_threshold=-1e-6)


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_layers_of_zeros_train_where_thresholds_start_below_them(
    estimator: str, shape: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    model = network()
    for i in (2, 4):  # the last layer hides the other from the loss until it is not 0 itself
        nn.init.zeros_(model[i].weight)
    attached = attach(model, estimator=estimator, threshold=shape, initial_threshold=-1e-6)
    assert all((threshold == -1e-6).all() for threshold in attached.thresholds().values())
    trained(model, attached, 1)
    assert (attached.thresholds()["2.weight"] == -1e-6).all(), "a reset returns to where thresholds start"
    assert attached.masks()["2.weight"].all()
    trained(model, attached, 39)
    assert all(float(model[i].weight.detach().abs().max()) > 0.01 for i in (2, 4))
    assert attached.density() > 0.05


@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_a_layer_that_is_reset_in_ten_consecutive_steps_is_named_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    model = network()
    nn.init.zeros_(model[4].weight)
    with pytest.warns(UserWarning, match="never trains"):
        attached = attach(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trained(model, attached, 40)
    assert [str(one.message)[:60] for one in said] == ["4.weight: thresholds were reset in 10 consecutive steps. Whe"]


def watched(history: Sequence[str], *, waits: bool) -> list[tuple[int, str]]:
    """What is said, with its step, where step i resets the layers history[i]."""
    watch, resets = ResetWatch(["a", "b"], device=torch.device("cpu"), waits=waits), 0
    found = []
    for step, layers in enumerate(history, start=1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if watch.watching:
                watch.note(torch.tensor([name in layers for name in "ab"]))
            resets += len(layers)
            watch.after_update(torch.tensor(resets))
        found += [(step, str(one.message).split(":")[0]) for one in said]
    return found


@pytest.mark.parametrize(
    ("history", "said"),
    [
        # a look at step 20 starts the watch, so that ten are seen at step 30
        (["a"] * 40, [(30, "a")]),
        (["a"] * 29 + [""] + ["a"] * 9, []),
        (["", ""] + ["ab"] * 38, [(30, "a, b")]),
        (["a"] * 24 + ["ab"] * 20, [(30, "a"), (34, "b")]),
        (["a", "b"] * 30, []),
    ],
)
def test_runs_of_resets_are_counted_layer_by_layer(history: list[str], said: list[tuple[int, str]]) -> None:
    assert watched(history, waits=False) == said


def test_a_device_that_is_waited_for_is_looked_at_now_and_then() -> None:
    assert watched(["a"] * 300, waits=True) == [(110, "a")]
    assert watched((["a"] + [""] * 9) * 30, waits=True) == []


@pytest.mark.filterwarnings("error")
def test_resets_now_and_then_are_no_news() -> None:
    attached = attach(model := network())
    for _ in range(3):
        with torch.no_grad():
            model[0].weight_threshold.fill_(9)
        trained(model, attached, 5)
    assert int(attached.threshold_resets()) == 3


def test_the_start_of_thresholds_is_part_of_a_state_only_where_it_is_not_zero() -> None:
    plain, moved = attach(network()), attach(network(), initial_threshold=-1e-3)
    assert "initial_threshold" not in plain.state_dict()["hyperparameters"]
    assert plain.state_dict()["thresholds"]["structure"] == {"shape": "vector", "estimator": "long_tailed"}
    with pytest.raises(ValueError, match=r"initial_threshold -0\.001 -> 0\.0"):
        plain.load_state_dict(moved.state_dict())
    again = attach(network(), initial_threshold=-1e-3)
    again.load_state_dict(moved.state_dict())
