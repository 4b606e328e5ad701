"""`reset_rule` of dst: what is reset in a layer that keeps too little."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import methods

KEPT, PRUNED = 0.5, 0.1  # on the two sides of a threshold of 0.4
THRESHOLD = 0.4


def attach(model: nn.Module, **hyperparameters: Any) -> methods.Attachment:
    """Bound to an optimizer that moves nothing: a step then only counts and resets."""
    attached = methods.attach(model, "dst", total_steps=10, steps_per_epoch=10, **hyperparameters)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    return attached


def prune(model: nn.Module, layer: str = "", *, kept: int) -> None:
    """Leave the first `kept` weights above the layer's thresholds, and the others below."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        parameters[f"{layer}weight"].fill_(PRUNED).view(-1)[:kept] = KEPT
        parameters[f"{layer}weight_threshold"].fill_(THRESHOLD)


def test_once_resets_a_layer_one_time_and_each_layer_by_itself() -> None:
    attached = attach(model := nn.Sequential(nn.Linear(50, 20), nn.Linear(20, 50)), reset_rule="once")
    prune(model, "0.", kept=9)
    attached.step()
    assert attached.threshold_resets() == 1
    assert not attached.thresholds()["0.weight"].any()
    assert attached.kept_counts()[0] == 1000
    prune(model, "0.", kept=9)
    prune(model, "1.", kept=9)
    attached.step()
    assert attached.threshold_resets() == 2
    assert attached.thresholds()["0.weight"].tolist() == pytest.approx(20 * [THRESHOLD])
    assert not attached.thresholds()["1.weight"].any()
    assert attached.kept_counts().tolist() == [9, 1000]


def test_once_is_once_after_resuming_whatever_the_order_of_the_layers() -> None:
    layers = {"a": nn.Linear(50, 20), "b": nn.Linear(20, 50)}
    attached = attach(model := nn.ModuleDict(layers), reset_rule="once")
    prune(model, "a.", kept=9)
    attached.step()
    resumed = attach(other := nn.ModuleDict({"b": nn.Linear(20, 50), "a": nn.Linear(50, 20)}), reset_rule="once")
    resumed.load_state_dict(attached.state_dict())
    for layer in ("a.", "b."):
        prune(other, layer, kept=9)
    resumed.step()
    assert resumed.threshold_resets() == 2
    kept = dict(zip(resumed.thresholds(), resumed.kept_counts().tolist(), strict=True))
    assert kept == {"a.weight": 9, "b.weight": 1000}


def test_once_does_not_warn_of_a_layer_that_stays_empty(recwarn: pytest.WarningsRecorder) -> None:
    attached = methods.attach(model := nn.Linear(50, 20), "dst", total_steps=60, steps_per_epoch=60, reset_rule="once")
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    for _ in range(60):
        prune(model, kept=0)
        attached.penalty()
        attached.step()
    assert attached.threshold_resets() == 1
    assert not [str(warning.message) for warning in recwarn]


def test_empty_units_resets_only_the_units_that_keep_nothing() -> None:
    attached = attach(model := nn.Sequential(nn.Linear(50, 20)), reset_rule="empty_units")
    prune(model, "0.", kept=9)  # all of them in the first unit
    attached.step()
    assert attached.thresholds()["0.weight"].tolist() == pytest.approx([THRESHOLD, *19 * [0.0]])
    assert attached.kept_counts().tolist() == [9 + 19 * 50]
    assert attached.threshold_resets() == 1


def test_empty_units_leaves_a_layer_that_keeps_enough() -> None:
    attached = attach(model := nn.Sequential(nn.Linear(50, 20)), reset_rule="empty_units")
    prune(model, "0.", kept=10)
    attached.step()
    assert attached.threshold_resets() == 0
    assert attached.kept_counts().tolist() == [10]


def test_empty_units_counts_only_layers_in_which_it_reset_something() -> None:
    attached = attach(model := nn.Linear(300, 5), reset_rule="empty_units")
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        parameters["weight"].fill_(PRUNED)[:, 0] = KEPT  # 5 of 1500, one in every unit
        parameters["weight_threshold"].fill_(THRESHOLD)
    attached.step()
    assert attached.threshold_resets() == 0
    assert attached.kept_counts().tolist() == [5]


def test_empty_units_of_a_vector_of_weights_are_its_entries() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.full((200,), PRUNED))

    attached = attach(model := Scaled(), reset_rule="empty_units", extra=["gain"])
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        parameters["gain"][0] = KEPT
        parameters["gain_threshold"].fill_(THRESHOLD)
    attached.step()
    assert attached.thresholds()["gain"].tolist() == pytest.approx([THRESHOLD, *199 * [0.0]])
    assert attached.kept_counts().tolist() == [200]


def test_empty_units_are_filters_of_a_transposed_convolution() -> None:
    attached = attach(model := nn.ConvTranspose1d(20, 5, 10), reset_rule="empty_units")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        parameters["weight"].fill_(PRUNED)[0, 2, :9] = KEPT
        parameters["weight_threshold"].fill_(THRESHOLD)
    attached.step()
    assert attached.thresholds()["weight"].tolist() == pytest.approx([0, 0, THRESHOLD, 0, 0])
    assert attached.kept_counts().tolist() == [9 + 4 * 200]


@pytest.mark.parametrize("shape", ["scalar", "matrix"])
def test_empty_units_needs_a_threshold_for_each_unit(shape: str) -> None:
    with pytest.raises(ValueError, match=f"needs vector thresholds, one for each unit: threshold is '{shape}'"):
        attach(nn.Linear(50, 20), reset_rule="empty_units", threshold=shape)


@pytest.mark.parametrize("rule", ["once", "empty_units", "recurrent_too"])
def test_a_rule_without_a_reset_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="reset_density is None, so nothing is reset: leave out"):
        attach(nn.Linear(50, 20), reset_density=None, reset_rule=rule)


def test_a_method_of_ones_own_is_refused_an_unknown_rule() -> None:
    thresholds = attach(nn.Linear(50, 20)).context.thresholds
    with pytest.raises(ValueError, match="reset_rule is 'empty_unit'; valid: layer, recurrent_too, once, empty_units"):
        thresholds.attach(shape="vector", estimator="long_tailed", reset_rule="empty_unit")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="reset_rule"):
        attach(nn.Linear(50, 20), reset_rule="twice")


@pytest.mark.parametrize(("rule", "resets"), [("layer", 0), ("once", 0), ("empty_units", 0), ("recurrent_too", 1)])
def test_recurrent_layers_are_reset_where_asked(rule: str, resets: int) -> None:
    attached = attach(model := nn.LSTM(50, 5), reset_rule=rule)
    with torch.no_grad():
        dict(model.named_parameters())["weight_ih_l0"].fill_(PRUNED)
        dict(model.named_parameters())["weight_ih_l0_threshold"].fill_(THRESHOLD)
    attached.step()
    assert attached.threshold_resets() == resets
    assert attached.kept_counts()[0] == 1000 * resets


def test_the_rules_are_part_of_the_saved_state() -> None:
    saved = attach(nn.Linear(50, 20), reset_rule="once").state_dict()
    with pytest.raises(ValueError, match="once"):
        attach(nn.Linear(50, 20)).load_state_dict(saved)
