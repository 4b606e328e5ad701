"""A hyperparameter that a method gets later changes no cell's identity while it has its default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import methods.registry
from benchmark import data, suites
from benchmark.commands.labels import distinctions
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError
from benchmark.training.loop import Training
from methods.algorithms.static import Static


@dataclass(kw_only=True)
class Later(Static):
    """Static, with a hyperparameter that it did not always have."""

    name = "later"
    added = {"warm_up": 0}  # noqa: RUF012

    warm_up: int = 0


DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=32, test_limit=16)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with methods.registry.temporary():
        methods.register("later", f"{__name__}:Later")
        yield


def spec(**given: object) -> RunSpec:
    optimizer = Optimizer(lr=0.1, batch_size=16, epochs=1)
    return suites.cell("later", data=DATA, model=Model(name="lenet-300-100"), optimizer=optimizer, **given)


def test_at_its_default_it_is_left_out_of_the_spec() -> None:
    assert "warm_up" not in spec().method
    assert spec(warm_up=0).run_id == spec().run_id
    assert spec(warm_up=3).method["warm_up"] == 3
    assert spec(warm_up=3).run_id != spec().run_id


def test_it_can_be_set_and_set_back_though_the_spec_leaves_it_out() -> None:
    (changed,) = suites.with_fields([spec()], {"method.warm_up": 3})
    assert (changed.method["warm_up"], changed.departs) == (3, ("method.warm_up=3 (suite: 0)",))
    assert suites.with_fields([spec()], {"method.warm_up": 0}) == (spec(),)
    (back,) = suites.with_fields([changed], {"method.warm_up": 0})
    assert back.run_id == spec().run_id
    with pytest.raises(SpecError, match=r"no cell's method has 'warmup': did you mean 'warm_up'\?"):
        suites.with_fields([spec()], {"method.warmup": 3})


def test_a_summary_names_it_where_cells_differ_in_it() -> None:
    first, other = distinctions([spec(), spec(warm_up=3)]).values()
    assert (first, other) == ({"density": "0.05"}, {"density": "0.05", "warm_up": "3"})


def test_a_cell_trains_with_the_default_that_its_spec_leaves_out() -> None:
    training = Training(spec(), data.load(DATA, data_dir=Path(), device=torch.device("cpu")))
    assert training.attached.method.hyperparameters()["warm_up"] == 0
