"""The default suite: the first six methods on every model, each other method of the package on one."""

from __future__ import annotations

import hashlib
import sys
import types
from collections import Counter

import pytest

import methods
from benchmark import suites
from benchmark.suites import digits
from methods import registry
from methods.algorithms.static import Static

FIRST = "aa6b2dafd2b2d196511d43b757fed35c6e33c8edee74b9a8512acaf64cf3896f"  # SHA-256 of the first 72 run ids


def test_every_method_of_the_package_is_listed_once() -> None:
    assert sorted([*digits.METHODS, *digits.OTHERS]) == registry.own()


def test_the_cells_of_the_first_six_methods_keep_their_run_ids() -> None:
    known = [spec.run_id for spec in suites.load("digits").specs if spec.method["name"] in digits.METHODS]
    assert hashlib.sha256(" ".join(known).encode()).hexdigest() == FIRST


def test_other_methods_run_once_on_the_smallest_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("their_static")
    vars(module)["Static"] = Static
    monkeypatch.setitem(sys.modules, "their_static", module)
    monkeypatch.setitem(digits.OTHERS, "other_static", {"density": 0.3})
    with registry.temporary():
        methods.register("other_static", "their_static:Static")
        specs = suites.load("digits").specs
    assert len(specs) == 72 + len(digits.OTHERS)
    counts = Counter(spec.method["name"] for spec in specs)
    assert {counts[name] for name in digits.METHODS} == {12}
    (other,) = (spec for spec in specs if spec.method["name"] == "other_static")
    assert (other.model.name, other.seed, other.density) == ("lenet-300-100", 0, 0.3)
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)


def test_a_plug_in_is_no_part_of_it() -> None:
    before = suites.load("digits").specs
    with registry.temporary():
        methods.register("somebodys", "no_such_module:Class")
        assert "somebodys" in methods.available()
        assert suites.load("digits").specs == before
