"""Labels: no two cells of a suite look alike, and nothing is said that tells no cell from another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from grids import Bench, Grid, cells

from benchmark import suites
from benchmark.commands.labels import labels
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DECAYS = """
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=32, test_limit=32)
SETTING = {"data": DATA, "model": Model(name="lenet-300-100"), "optimizer": Optimizer(lr=0.01, batch_size=16)}


def suite():
    return [cell("str", threshold_weight_decay=decay, protocol=(), **SETTING) for decay in (0.01, 0.02)]
"""
SGD = Optimizer(lr=0.1, batch_size=16, epochs=1)


def spec(method: str = "dense", seed: int = 0, **given: object) -> RunSpec:
    return cell(method, data=Data(name="digits"), model=Model(name="lenet-300-100"), optimizer=SGD, seed=seed, **given)


@pytest.mark.parametrize("name", suites.NAMES)
def test_no_two_cells_of_a_suite_have_one_label(name: str) -> None:
    specs = suites.load(name).specs
    assert len(set(labels(specs).values())) == len(specs)


def test_the_thresholds_shapes_and_the_protocols_are_told() -> None:
    shapes = [spec("dst", alpha=1e-3, threshold=shape) for shape in ("vector", "scalar", "matrix")]
    start = "lenet-300-100 dst alpha=0.001 threshold"
    assert list(labels(shapes).values()) == [f"{start}={shape} seed=0" for shape in ("vector", "scalar", "matrix")]
    recipes = [spec(protocol=("paper",)), dataclasses.replace(spec(protocol=("official",)), optimizer=Optimizer(lr=1))]
    assert list(labels(recipes).values()) == [f"lenet-300-100 dense protocol={p} seed=0" for p in ("paper", "official")]


def test_a_hyperparameter_of_none_is_told_where_others_have_a_value() -> None:
    told = labels([spec("dst", alpha=1e-3, **given) for given in ({}, {"reset_density": None})])
    start = "lenet-300-100 dst alpha=0.001 reset_density"
    assert list(told.values()) == [f"{start}=0.01 seed=0", f"{start}=none seed=0"]


def test_other_fields_are_told_only_where_cells_would_look_alike() -> None:
    slower = [dataclasses.replace(spec(seed=seed), optimizer=dataclasses.replace(SGD, lr=0.01)) for seed in (0, 1)]
    usual = [spec(seed=seed) for seed in (0, 1, 2)]
    told = labels([*usual, *slower])
    assert [told[one.run_id] for one in usual] == [f"lenet-300-100 dense seed={seed}" for seed in (0, 1, 2)]
    assert [told[one.run_id] for one in slower] == [f"lenet-300-100 dense lr=0.01 seed={seed}" for seed in (0, 1)]
    elsewhere = dataclasses.replace(spec("set", density=0.1), optimizer=dataclasses.replace(SGD, lr=0.01))
    assert list(labels([spec(), elsewhere]).values())[1] == "lenet-300-100 set density=0.1 seed=0"


def test_cells_of_several_protocols_are_told_apart_too() -> None:
    memberships = [("a", "b"), ("b", "c"), ()]
    recipes = [
        dataclasses.replace(spec(protocol=given), optimizer=Optimizer(lr=lr)) for lr, given in enumerate(memberships)
    ]
    assert list(labels(recipes).values()) == [
        f"lenet-300-100 dense protocol={told} seed=0" for told in ("a-b", "b-c", "none")
    ]


def test_an_empty_field_is_told_where_others_have_a_value() -> None:
    limited = [
        dataclasses.replace(spec(seed=seed), data=Data(name="digits", train_limit=limit))
        for seed in (0, 1)
        for limit in (10, 20, None)
        if (seed, limit) != (1, None)
    ]
    assert len(set(labels(limited).values())) == len(limited)


def test_a_field_is_told_where_the_caller_wants_it_always() -> None:
    same = [spec("str", seed=seed, threshold_weight_decay=0.01) for seed in (0, 1)]
    start = "lenet-300-100 str"
    assert list(labels(same).values()) == [f"{start} seed={seed}" for seed in (0, 1)]
    told = labels([*same, spec()], always=["method.threshold_weight_decay", "method.alpha"])
    assert list(told.values()) == [
        *(f"{start} threshold_weight_decay=0.01 seed={seed}" for seed in (0, 1)),
        "lenet-300-100 dense seed=0",
    ]


def test_values_that_differ_after_six_digits_are_told_in_full() -> None:
    close = [spec("static", density=0.0123456 + more) for more in (0, 1e-8)]
    start = "lenet-300-100 static density"
    assert list(labels(close).values()) == [f"{start}=0.0123456 seed=0", f"{start}=0.01234561 seed=0"]
    assert list(labels(close[1:]).values()) == [f"{start}=0.0123456 seed=0"]


def test_a_run_names_its_cells_as_the_plan_of_the_whole_suite_does(bench: Bench, tmp_path: Path) -> None:
    """Also where --where leaves one value of the hyperparameter in which the suite's cells differ."""
    (tmp_path / "decays.py").write_text(DECAYS)
    command = ("--suite", tmp_path / "decays.py", "--where", "method.threshold_weight_decay=0.02")
    command = (*command, "--out", tmp_path / "runs")
    (planned,) = bench("plan", *command, "--json").json["to_run"]
    assert planned["label"] == "lenet-300-100 str threshold_weight_decay=0.02 seed=0"
    finished = bench("run", *command, "--workers", "1", "--no-mlflow")
    assert finished.code == 0
    assert f"{planned['run_id']} {planned['label']}: " in finished.stdout


def test_every_command_uses_the_label(bench: Bench, grid: Grid) -> None:
    label = "lenet-300-100 static density=0.1 protocol=official seed=0"
    assert f" {label}: " in grid.finished.stdout
    run_id = next(path.name for path in cells(grid.out) if "static" in (path / "spec.json").read_text())
    assert bench("show", run_id, "--out", grid.out).stdout.startswith(f"{run_id} {label}\n")
    assert bench("show", run_id, "--out", grid.out, "--json").json["label"] == label
    plan = bench("plan", "--suite", grid.suite, "--out", grid.out / "new", "--json").json
    assert label in [cell["label"] for cell in plan["to_run"]]
    assert "lenet-300-100 broken protocol=paper seed=0: failed: " in bench("status", "--out", grid.out).stdout
