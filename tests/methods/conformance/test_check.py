"""The conformance kit: our methods and good plug-ins pass, and mistakes of its user are named."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from good_methods import (
    CountsInSteps,
    DecayingThresholds,
    GrowByGradient,
    LargestInForward,
    LargestUnits,
    NoisyGradients,
    ScoreOnDataThenRetrain,
)
from torch import nn

import methods
from methods import Method, registry
from methods.conformance import check, check_method, ways
from methods.conformance.class_promises import Candidate
from methods.conformance.networks import FAST, FULL
from methods.conformance.training import Training


def rare(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.rare)


@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_its_promises(name: str) -> None:
    check_method(name)


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_its_promises_on_every_network(name: str) -> None:
    check_method(name, level="full")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dst", {"alpha": 0.2}),  # resets, see below
        rare("dst", {"alpha": 0.05, "threshold": "scalar", "estimator": "straight_through"}),
        rare("dst", {"alpha": 0.05, "threshold": "matrix", "reset_density": None, "threshold_weight_decay": 0.01}),
        rare("set", {"drop": "magnitude", "drop_fraction": 0.5, "update_every": 1}),
        rare("static", {"allocation": "uniform", "density": 0.6}),
    ],
)
def test_methods_keep_their_promises_with_other_hyperparameters(name: str, values: dict[str, Any]) -> None:
    check_method(name, **values)


def test_the_kit_trains_dst_through_resets_and_set_through_updates() -> None:
    dst = Training(methods.create("dst", alpha=0.2), FAST[1]).run()
    assert dst.attached.threshold_resets() > 0
    updated = Training(methods.create("set", density=0.3), FAST[0]).run()
    masks = [moment.masks["0.weight"] for moment in updated.moments]
    assert [i for i in range(1, 25) if not torch.equal(masks[i], masks[i - 1])] == [3, 6, 9, 12, 15, 18, 21]


@pytest.mark.parametrize(
    "plugin",
    [GrowByGradient, LargestInForward, LargestUnits, DecayingThresholds, ScoreOnDataThenRetrain, NoisyGradients],
    ids=lambda cls: cls.__name__,
)
def test_plug_ins_of_every_family_pass_without_being_registered(plugin: type[Method]) -> None:
    check_method(plugin)


def test_a_registered_plug_in_passes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[:1])
    with registry.temporary():
        methods.register("mine", "good_methods:GrowByGradient")
        check_method("mine")
        check_method("mine", density=0.4, drop_fraction=0.1)


def test_a_value_of_the_kit_that_a_hyperparameter_cannot_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(kw_only=True)
    class Named(Method):
        density: str = "small"
        update_every: int = 100

    assert Candidate(Named, None, {}).values == {"update_every": 3}
    monkeypatch.setattr(check, "FAST", FAST[:1])
    monkeypatch.setattr(ways, "CHECKS", ())
    check_method(CountsInSteps)


def test_the_kit_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_method("dense")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_unknown_names_and_levels_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'dts': did you mean 'dst'\?"):
        check_method("dts")
    with pytest.raises(ValueError, match="level is 'slow'; valid: fast, full"):
        check_method("dst", level="slow")  # type: ignore[arg-type]


def test_the_networks_cover_what_the_kit_promises() -> None:
    kinds = {type(module) for network in FULL for module in network.build(0).modules()}
    assert {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LSTM, nn.GRU, nn.BatchNorm2d} <= kinds
    groups = {(m.groups, m.in_channels) for n in FAST for m in n.build(0).modules() if isinstance(m, nn.Conv2d)}
    assert {(1, 3), (2, 8), (8, 8)} <= groups  # plain, grouped, depthwise
    assert {name for network in FAST for name in network.dense} == {"frozen.weight", "embedding.weight"}
    for network in FULL:
        named = network.build(0).named_parameters()
        maskable = [name for name, p in named if p.dim() > 1 and name not in network.dense]
        assert list(methods.attach(network.build(0), "dense", total_steps=1, steps_per_epoch=1).masks()) == maskable
