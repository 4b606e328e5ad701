"""DST: shapes of thresholds, reset rule, penalty, optimizer groups, hyperparameters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from kernel_paths import use_kernels
from torch import Tensor, nn

import methods


def attach(model: nn.Module, **hyperparameters: Any) -> tuple[methods.Attachment, dict[str, nn.Parameter]]:
    """DST, bound to an optimizer that moves nothing: a step then only counts and resets."""
    attached = methods.attach(model, "dst", total_steps=10, steps_per_epoch=10, **hyperparameters)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    return attached, dict(model.named_parameters())


def two_layers() -> nn.Sequential:
    """Linear layers of 1000 weights each, all of them 0.5."""
    model = nn.Sequential(nn.Linear(50, 20), nn.Linear(20, 50))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


@pytest.mark.parametrize(
    ("shape", "sizes"), [("vector", [[8], [4]]), ("scalar", [[], []]), ("matrix", [[8, 3, 5], [4, 8]])]
)
def test_thresholds_start_at_zero_in_the_shape_asked_for(shape: str, sizes: list[list[int]]) -> None:
    attached, _ = attach(nn.Sequential(nn.Conv1d(3, 8, 5), nn.Linear(8, 4)), threshold=shape)
    assert [list(t.shape) for t in attached.thresholds().values()] == sizes
    assert not any(t.any() for t in attached.thresholds().values())
    assert attached.density() == 1


def test_a_recurrent_layer_has_a_threshold_for_each_gate_and_hidden_unit() -> None:
    attached, _ = attach(nn.LSTM(3, 5, num_layers=2))
    names = ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]
    assert {name: list(t.shape) for name, t in attached.thresholds().items()} == {name: [20] for name in names}


def keep_only(parameter: Tensor, count: int) -> None:
    """Leave `count` weights above a threshold of 0.4, the rest below it."""
    with torch.no_grad():
        parameter.fill_(0.1).view(-1)[:count] = 0.5


def test_exactly_one_percent_kept_does_not_reset() -> None:
    attached, parameters = attach(model := two_layers())
    keep_only(parameters["0.weight"], 10)
    nn.init.constant_(parameters["0.weight_threshold"], 0.4)
    assert attached.step() is False
    assert attached.thresholds()["0.weight"].tolist() == pytest.approx([0.4] * 20)
    assert attached.threshold_resets().item() == 0
    assert attached.kept_counts().tolist() == [10, 1000]
    assert int(torch.count_nonzero(methods.finalize(model).get_parameter("0.weight"))) == 10


def test_less_than_one_percent_kept_resets_all_thresholds_of_that_layer_and_no_others() -> None:
    attached, parameters = attach(two_layers())
    keep_only(parameters["0.weight"], 9)
    nn.init.constant_(parameters["0.weight_threshold"], 0.4)
    nn.init.constant_(parameters["1.weight_threshold"], 0.3)
    attached.step()
    assert attached.thresholds()["0.weight"].tolist() == [0.0] * 20
    assert attached.thresholds()["1.weight"].tolist() == pytest.approx([0.3] * 50)
    assert attached.kept_counts().tolist() == [1000, 1000]
    assert attached.density() == 1
    assert attached.threshold_resets().item() == 1


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("shape", ["vector", "scalar", "matrix"])
def test_thresholds_of_every_shape_are_reset(shape: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    attached, parameters = attach(two_layers(), threshold=shape)
    nn.init.constant_(parameters["1.weight_threshold"], 0.9)
    attached.step()
    assert attached.threshold_resets().item() == 1
    assert attached.kept_counts().tolist() == [1000, 1000]
    assert not parameters["1.weight_threshold"].any()


def test_every_reset_is_counted() -> None:
    attached, parameters = attach(two_layers())
    for _ in range(3):
        for name in ("0.weight", "1.weight"):
            nn.init.constant_(parameters[f"{name}_threshold"], 0.9)
        attached.step()
    assert attached.threshold_resets().item() == 6


def test_reset_density_moves_the_limit_and_none_never_resets() -> None:
    for reset_density, resets in ((0.5, 1), (0.4, 0), (None, 0)):
        attached, parameters = attach(two_layers(), reset_density=reset_density)
        keep_only(parameters["0.weight"], 0 if reset_density is None else 400)
        nn.init.constant_(parameters["0.weight_threshold"], 0.4)
        attached.step()
        assert attached.threshold_resets().item() == resets


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3), nn.GRU(4, 3), nn.LSTMCell(4, 3)], ids=["lstm", "gru", "cell"])
def test_recurrent_layers_are_never_reset(layer: nn.Module) -> None:
    attached, parameters = attach(layer)
    for name in attached.masks():
        nn.init.constant_(parameters[f"{name}_threshold"], 9.0)
    attached.step()
    assert attached.threshold_resets().item() == 0
    assert attached.kept_counts().tolist() == [0, 0]
    assert all((t == 9).all() for t in attached.thresholds().values())


def test_evaluation_alone_never_resets() -> None:
    model = two_layers()
    attached, parameters = attach(model)
    nn.init.constant_(parameters["0.weight_threshold"], 0.9)
    with torch.no_grad():
        model.eval()(torch.ones(1, 50))
    assert (attached.thresholds()["0.weight"] == 0.9).all()


def test_kept_counts_before_the_first_step_leave_out_weights_that_are_zero() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert attach(model)[0].kept_counts().tolist() == [6]


def test_the_penalty_is_alpha_times_the_sum_of_exp_of_minus_every_threshold() -> None:
    attached, parameters = attach(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), alpha=0.01)
    with torch.no_grad():
        parameters["0.weight_threshold"].copy_(torch.tensor([0.0, 1.0]))
        parameters["1.weight_threshold"].copy_(torch.tensor([-2.0]))
    want = 0.01 * (1 + math.exp(-1) + math.exp(2))
    penalty = attached.penalty()
    assert penalty.shape == ()
    assert penalty.item() == pytest.approx(want, rel=1e-6)
    penalty.backward()
    assert parameters["0.weight_threshold"].grad is not None
    assert parameters["0.weight_threshold"].grad.tolist() == pytest.approx([-0.01, -0.01 * math.exp(-1)])
    assert parameters["0.weight"].grad is None


def test_thresholds_have_a_parameter_group_of_their_own_with_their_own_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    attached, parameters = attach(model, threshold_weight_decay=3e-4)
    weights, own = attached.parameter_groups(weight_decay=1e-4)
    assert (weights["weight_decay"], own["weight_decay"]) == (1e-4, 3e-4)
    assert [id(p) for p in own["params"]] == [id(parameters["0.weight_threshold"])]
    others = {id(p) for name, p in parameters.items() if name != "0.weight_threshold"}
    assert {id(p) for p in weights["params"]} == others


def test_thresholds_decay_by_their_own_group_alone() -> None:
    for decay, want in ((0.0, 0.5), (0.2, 0.5 - 0.1 * 0.2 * 0.5)):
        model = nn.Linear(3, 2)
        attached = methods.attach(
            model, "dst", total_steps=1, steps_per_epoch=1, alpha=0.0, threshold_weight_decay=decay, reset_density=None
        )
        threshold = dict(model.named_parameters())["weight_threshold"]
        nn.init.constant_(threshold, 0.5)
        threshold.grad = torch.zeros_like(threshold)
        attached.bind(torch.optim.SGD(attached.parameter_groups(weight_decay=0.7), lr=0.1))
        attached.step()
        assert attached.thresholds()["weight"].tolist() == pytest.approx([want, want])


def test_an_optimizer_without_the_thresholds_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    weights = list(model.parameters())
    attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    with pytest.raises(ValueError, match=r"lacks the thresholds of 0\.weight, 1\.weight.*parameter_groups"):
        attached.bind(torch.optim.SGD(weights, lr=0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0: it must be 0 or more"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"threshold": "row"}, "threshold is 'row'; valid: vector, scalar, matrix"),
        ({"estimator": "ste"}, "estimator is 'ste'; valid: long_tailed, straight_through"),
        ({"reset_density": 1.5}, "reset_density is 1.5"),
        ({"threshold_weight_decay": -0.1}, "threshold_weight_decay is -0.1"),
        ({"initial_threshold": 0.1}, "initial_threshold is 0.1: it must be 0 or less"),
        ({"initial_threshold": float("nan")}, "initial_threshold is nan"),
        ({"initial_threshold": -float("inf")}, "initial_threshold is -inf"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("dst", **values)
