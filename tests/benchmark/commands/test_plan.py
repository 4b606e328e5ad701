"""What a plan says of time: from finished cells, from a probe that was asked for, or that it does not know."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from grids import Bench, Grid, rows, write_suite

import methods
from benchmark import results, suites
from benchmark.commands.estimate import Estimate, key

UNKNOWN = "no finished cell shows how long these take: run one of each model first, or plan with --probe"


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def probed(*_: object) -> None:
        raise AssertionError("nobody asked for a probe")

    monkeypatch.setattr("benchmark.commands.estimate.step_seconds", probed)


@pytest.mark.usefixtures("no_probe")
def test_a_plan_without_finished_cells_says_that_it_does_not_know(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    command = ("plan", "--suite", grid.suite, "--out", tmp_path / "runs")
    assert bench(*command).stdout.splitlines()[-1] == UNKNOWN
    found = bench(*command, "--json").json
    assert (found["estimated_seconds"], found["estimate_from"]) == (None, None)


@pytest.mark.usefixtures("no_probe")
def test_a_plan_is_from_finished_cells_of_the_model(bench: Bench, grid: Grid) -> None:
    command = ("plan", "--suite", grid.suite, "--out", grid.out, "--seeds", "5")
    assert bench(*command).stdout.splitlines()[-1].endswith("from measured cells")
    other = bench(*command, "--set", "model.name=lenet-5-caffe")
    assert other.stdout.splitlines()[-1] == UNKNOWN


def test_a_probe_is_asked_for(bench: Bench, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.commands.estimate.step_seconds", lambda spec: (0.25, 4))
    found = bench("plan", "--suite", grid.suite, "--out", tmp_path, "--workers", "2", "--probe", "--json").json
    assert found["estimated_seconds"] == 5 * 2 / 2  # five cells of two epochs of a second, on two workers
    assert found["estimate_from"] == "a probe of a few steps on the CPU"


def test_estimates_are_in_cpu_seconds_where_these_are_fewer(grid: Grid) -> None:
    with methods.registry.temporary():
        (spec,) = [spec for spec in suites.load(grid.suite).specs if spec.method["name"] == "static"]
    row = results.pending_row(spec, ()) | {"status": "done", "epochs": 2, "train_seconds": 40.0}
    for cpu, seconds in (("", 20.0), (8.0, 4.0), (80.0, 20.0)):  # unknown; a loaded machine; two processes
        estimate = Estimate()
        estimate.learn_rows([(spec, row | {"train_cpu_seconds": cpu})])
        assert estimate.epoch_seconds(key(spec)) == seconds
    assert rows(grid.out)[spec.run_id]["train_cpu_seconds"]


@pytest.mark.parametrize(
    "change",
    [
        "data.train_limit=32",
        "data.validation=8",
        "model.widths=[30,10]",
        "precision=bfloat16",
        "optimizer.batch_size=8",
    ],
)
@pytest.mark.usefixtures("no_probe")
def test_cells_that_differ_in_what_an_epoch_takes_show_no_time(bench: Bench, grid: Grid, change: str) -> None:
    changed = bench("plan", "--suite", grid.suite, "--out", grid.out, "--where", "method=static", "--set", change)
    assert changed.stdout.splitlines()[-1] == UNKNOWN
    longer = ("--set", "optimizer.epochs=20", "--set", "optimizer.lr=0.1")
    plan = bench("plan", "--suite", grid.suite, "--out", grid.out, "--where", "method=static", *longer)
    assert plan.stdout.splitlines()[-1].endswith("from measured cells")


def test_nothing_left_to_run_takes_no_time(bench: Bench, grid: Grid) -> None:
    plan = bench("plan", "--suite", grid.suite, "--out", grid.out, "--where", "status=done", "--json").json
    assert (plan["to_run"], plan["estimated_seconds"]) == ([], 0)
    with (grid.out / "results.csv").open() as file:
        assert sorted(plan["done"]) == sorted(row["run_id"] for row in csv.DictReader(file) if row["status"] == "done")


def test_a_dry_run_has_the_workers_of_the_run(bench: Bench, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.commands.run.resolve_device", {"auto": "cuda", "cpu": "cpu"}.__getitem__)
    monkeypatch.setattr("benchmark.launch.choice.default_workers", {"cuda": 8, "cpu": 4}.__getitem__)
    command = ("run", "--dry-run", "--suite", grid.suite, "--out", grid.out, "--json")
    for options, workers in (
        ((), 8),
        (("--processes-per-cell", "2"), 4),
        (("--processes-per-cell", "2", "--device", "cpu"), 2),
        (("--workers", "3"), 3),
    ):
        assert bench(*command, *options).json["workers"] == workers
    refused = bench(*command, "--processes-per-cell", "4", "--workers", "3")
    assert (refused.code, "need more than the 8 GPUs here" in refused.stderr) == (2, True)


TWICE = """
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

SETTING = {"data": Data(name="digits"), "model": Model(name="lenet-300-100"), "optimizer": Optimizer()}


def suite():
    listed = [cell("dst", alpha=alpha, protocol=("paper",), **SETTING) for alpha in (0.001, 1e-3, 0.002)]
    return [*listed, cell("dst", alpha=0.002, protocol=("official",), **SETTING)]
"""


def test_a_plan_says_which_cells_are_listed_twice(bench: Bench, tmp_path: Path) -> None:
    """A cell that is listed once for each protocol is no repetition."""
    (tmp_path / "twice.py").write_text(TWICE)
    command = ("plan", "--suite", tmp_path / "twice.py", "--out", tmp_path / "runs")
    lines = bench(*command).stdout.splitlines()
    assert lines[0].startswith("suite twice: 2 cells")
    assert lines[1].endswith("more than once; each trains once: 1, such as lenet-300-100 dst alpha=0.001 seed=0")
    assert bench(*command, "--json").json["repeated"] == ["lenet-300-100 dst alpha=0.001 seed=0"]
    assert bench("plan", "--suite", "digits", "--out", tmp_path / "runs", "--json").json["repeated"] == []


def test_a_dry_run_refuses_the_changed_suite_that_run_refuses(bench: Bench, tmp_path: Path) -> None:
    suite, out = tmp_path / "grid.py", tmp_path / "runs"
    write_suite(suite, {"lenet-300-100": 2}, methods=["dense"])
    results.prepare(out)
    results.remember(out, "grid", (), list(suites.load(str(suite)).specs))
    command = ("run", "--suite", suite, "--out", out, "--dry-run")
    assert bench(*command).code == 0
    write_suite(suite, {"lenet-300-100": 3}, methods=["dense"])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused = bench(*command)
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.error == bench(*command[:-1]).error
    assert "(lenet-300-100 dense seed=0: optimizer.epochs: 2 -> 3)" in refused.error
    assert bench(*command, "--accept-drift").code == 0
    assert bench("plan", *command[1:-1]).code == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
