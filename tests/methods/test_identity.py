"""Hyperparameters that a method gets later change neither its identity nor its states at their default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import nn

import methods
from methods import Method
from methods.conformance import ConformanceError, check_method


@dataclass(kw_only=True)
class First(Method):
    """As it was released."""

    name = "made_up"
    version = 1
    reference = "none"
    density_promise = "dense"

    rate: float = 0.5


@dataclass(kw_only=True)
class Later(First):
    """The same method with a hyperparameter more."""

    added: ClassVar[dict[str, Any]] = {"warm_up_steps": 0}

    warm_up_steps: int = 0


@dataclass(kw_only=True)
class Heir(Later):
    """Inherits what was added."""


@dataclass(kw_only=True)
class AddsItsOwn(Later):
    added: ClassVar[dict[str, Any]] = {"power": 2.0}

    power: float = 2.0


def attach(method: Method) -> methods.Attachment:
    return methods.attach(nn.Linear(3, 2), method, total_steps=2, steps_per_epoch=1)


@pytest.mark.parametrize("kind", [Later, Heir, AddsItsOwn])
def test_at_its_default_an_added_hyperparameter_is_no_part_of_the_identity(kind: type[Later]) -> None:
    assert kind().identity() == First().identity() == {"rate": 0.5}
    assert kind(rate=0.1).identity() == {"rate": 0.1}
    assert kind().hyperparameters()["warm_up_steps"] == 0


@pytest.mark.parametrize("kind", [Later, Heir, AddsItsOwn])
def test_at_another_value_it_is(kind: type[Later]) -> None:
    assert kind(warm_up_steps=3).identity() == {"rate": 0.5, "warm_up_steps": 3}


def test_a_subclass_adds_to_what_its_base_has_added() -> None:
    assert AddsItsOwn.added_hyperparameters() == {"warm_up_steps": 0, "power": 2.0}
    assert AddsItsOwn(power=1.0).identity() == {"rate": 0.5, "power": 1.0}


def test_the_identity_is_all_hyperparameters_without_those_added_at_their_defaults() -> None:
    for name in methods.available():
        method = methods.create(name)
        added = method.added_hyperparameters()
        assert method.identity() | added == method.hyperparameters()
        assert not method.identity().keys() & added.keys()


def test_dst_where_thresholds_start_at_zero_is_the_method_that_it_was() -> None:
    names = ["alpha", "threshold", "estimator", "reset_density", "threshold_weight_decay"]
    assert list(methods.create("dst").identity()) == names
    assert methods.create("dst", initial_threshold=-1e-4).identity()["initial_threshold"] == -1e-4


@pytest.mark.parametrize("kind", [Later, Heir, AddsItsOwn])
def test_a_state_from_before_the_addition_loads_and_one_from_after_is_the_same(kind: type[Later]) -> None:
    before, now = attach(First()), attach(kind())
    assert now.state_dict()["hyperparameters"] == before.state_dict()["hyperparameters"] == {"rate": 0.5}
    now.load_state_dict(before.state_dict())
    before.load_state_dict(now.state_dict())


@pytest.mark.parametrize(
    ("saved", "resumed", "message"),
    [
        (First(), Later(warm_up_steps=3), "warm_up_steps 0 -> 3"),
        (Later(warm_up_steps=3), Later(), "warm_up_steps 3 -> 0"),
        (Later(warm_up_steps=3), Heir(warm_up_steps=4), "warm_up_steps 3 -> 4"),
        (Later(warm_up_steps=3), First(), "warm_up_steps 3 -> None"),
    ],
)
def test_a_state_with_another_value_is_refused_by_name(saved: Method, resumed: Method, message: str) -> None:
    with pytest.raises(ValueError, match=f"saved with other hyperparameters: {message}$"):
        attach(resumed).load_state_dict(attach(saved).state_dict())


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"no_such": 1}, "'no_such' is in `added` and is no hyperparameter"),
        ({"rate": 0.1}, "'rate' is 0.1 in `added` and 0.5 in the constructor"),
    ],
)
def test_the_conformance_kit_names_a_wrong_declaration(
    added: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(First, "added", added)
    with pytest.raises(ConformanceError, match=f"check_added_hyperparameters: {message}"):
        check_method(First)


def test_a_state_with_the_same_added_value_loads() -> None:
    state: dict[str, Any] = attach(Later(warm_up_steps=3)).state_dict()
    assert state["hyperparameters"] == {"rate": 0.5, "warm_up_steps": 3}
    attach(Later(warm_up_steps=3)).load_state_dict(state)
