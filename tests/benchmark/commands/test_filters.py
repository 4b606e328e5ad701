"""`--where`: which cells a filter leaves, and what it says of a field or a value that there is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from grids import Bench, Grid

from benchmark import results
from benchmark.commands.filters import select
from benchmark.commands.labels import distinctions
from benchmark.results import Row
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError


def member(**changes: Any) -> tuple[RunSpec, Row]:
    method = changes.pop("method", {"name": "dst", "version": 1, "alpha": 5e-4})
    status, suites = changes.pop("status", "pending"), changes.pop("suites", ("mnist",))
    fixed = {"data": Data(name="mnist"), "model": Model(name="lenet-300-100"), "optimizer": Optimizer(lr=0.01)}
    spec = RunSpec(**fixed, method=method, **changes)
    return spec, results.pending_row(spec, suites) | {"status": status}


DENSE, STATIC = {"name": "dense", "version": 1}, {"name": "static", "version": 1}
TABLE = [
    member(seed=0, protocol=("paper", "official")),
    member(seed=1, protocol=("paper",), suites=("mnist", "mine")),
    member(seed=0, method={"name": "dst", "version": 1, "alpha": 1e-3}, departs=("seed=0 (suite: 1)",)),
    member(seed=10, method=DENSE, protocol=("official",), status="done"),
    member(seed=0, method=STATIC, density=0.1),
]


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["method=dst"], [0, 1, 2]),
        (["method=dst,dense"], [0, 1, 2, 3]),
        (["method=dst", "seed=0"], [0, 2]),
        (["alpha=5e-4"], [0, 1]),
        (["alpha=0.00050"], [0, 1]),
        (["method.alpha=0.0005,1e-3"], [0, 1, 2]),
        (["seed=0.0"], [0, 2, 4]),
        (["seed=1"], [1]),
        (["alpha=nan"], [3, 4]),
        (["density_target=nan", "method=dst,static"], [0, 1, 2]),
        (["density=0.1"], []),
        (["density_target=0.1"], [4]),
        (["optimizer.lr=1e-2"], [0, 1, 2, 3, 4]),
        (["lr=0.01", "batch_size=64"], [0, 1, 2, 3, 4]),
        (["data.train_limit=nan"], [0, 1, 2, 3, 4]),
        (["protocol=paper"], [0, 1]),
        (["protocol=official"], [0, 3]),
        (["protocol=nan"], [2, 4]),
        (["suite=mine"], [1]),
        (["status=done"], [3]),
        (["departs=seed=0 (suite: 1)"], [2]),
    ],
)
def test_filters(where: list[str], chosen: list[int]) -> None:
    """Commas mean or, repeats and; numbers compare as floats; nan is empty; memberships one by one."""
    if not chosen:
        with pytest.raises(SpecError):
            select(TABLE, where)
        return
    assert select(TABLE, where) == [TABLE[index] for index in chosen]


def test_run_ids_are_compared_as_text_even_where_they_look_like_numbers() -> None:
    ids = ["12e456789012", "34e456789012"]  # both are infinite as floats
    table = [(spec, row | {"run_id": run_id}) for (spec, row), run_id in zip(TABLE[:2], ids, strict=True)]
    assert select(table, [f"run_id={ids[0]}"]) == table[:1]


def test_a_number_is_selected_as_labels_print_it_where_no_cell_has_it_exactly() -> None:
    first, second = TABLE[0], member(seed=0, method={"name": "dst", "version": 1, "alpha": 1 / 3})
    assert select([first, second], ["alpha=0.333333"]) == [second]
    rounded = member(seed=0, method={"name": "dst", "version": 1, "alpha": 0.333333})
    assert select([first, second, rounded], ["alpha=0.333333"]) == [rounded]


def test_values_beyond_twenty_are_counted() -> None:
    table = [member(seed=seed) for seed in range(23)]
    with pytest.raises(SpecError, match=r"present: 0, 1, 2, .*, 19 and 3 more$"):
        select(table, ["seed=23"])


@pytest.mark.parametrize("name", ["density", "epochs"])
def test_cells_to_run_are_not_chosen_by_what_was_measured(bench: Bench, grid: Grid, name: str) -> None:
    """Labels and --set use the names of these columns for the spec's fields."""
    meant = {"density": "density_target=0.1", "epochs": "optimizer.epochs=2"}[name]
    value = meant.partition("=")[2]
    for command in (("run",), ("plan",), ("match", "--model", "lenet-300-100", "--method", "dst", "--density", "0.1")):
        done = bench(*command, "--suite", grid.suite, "--out", grid.out, "--where", f"{name}={value}")
        assert done.code == 2
        assert done.error.endswith(f"write {meant.partition('=')[0]}=")
    assert bench("plan", "--suite", grid.suite, "--out", grid.out, "--where", meant).code == 0


def test_a_list_is_selected_by_its_values_joined_as_labels_join_them() -> None:
    (spec, row), pattern = TABLE[0], {"name": "set", "version": 1, "pattern": (0.5, 1.0, 1e-5)}
    changed = [
        dataclasses.replace(spec, model=Model(name="vgg16", widths=(8, 8, 16))),
        dataclasses.replace(spec, data=Data(name="synthetic", shape=(1, 28, 28))),
        dataclasses.replace(spec, optimizer=Optimizer(lr=0.1, schedule="step", milestones=(80, 120))),
        dataclasses.replace(spec, method=pattern),
    ]
    table = [(one, row) for one in [spec, *changed]]
    conditions = ["model.widths=8-8-16", "data.shape=1-28-28", "optimizer.milestones=80-120"]
    for at, condition in enumerate([*conditions, "method.pattern=0.5-1-1e-05"], 1):
        assert select(table, [condition]) == table[at : at + 1]
    assert select(table, ["model.widths=nan,8-8-16"]) == table
    assert distinctions([spec, changed[0]])[changed[0].run_id]["widths"] == "8-8-16"
    with pytest.raises(SpecError, match=r"--where optimizer\.milestones=80: no cell has .*; present: 80-120, nan$"):
        select(table, ["optimizer.milestones=80,120"])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("metod=dst", r"unknown field 'metod': did you mean 'method'( or '[a-z_.]+'){,4}\? valid are .{,100}$"),
        ("method.alfa=1", r"unknown field 'method\.alfa': did you mean 'method\.alpha'"),
        ("name=dst", r"unknown field 'name': did you mean .*'data\.name'.* or 'method\.name' or 'model\.name'.*\?"),
        ("optim.lr=1", r"unknown field 'optim\.lr': did you mean 'optimizer\.lr'"),
        ("lr=0.1", r"--where optimizer\.lr=0\.1: no cell has that value; present: 0\.01$"),
        ("seed=11", r"--where seed=11: no cell has that value; present: 0, 1, 10$"),
        ("method", "--where method: write FIELD=value, such as method=dst"),
        ("method=dts", r"--where method=dts: no cell has that value; present: dense, dst, static"),
        ("method=dst,dts", r"--where method=dts: no cell has that value"),
        ("alpha=5e-5", r"no cell has that value; present: 0\.0005, 0\.001, nan"),
        ("alpha=", "no cell has that value"),
        ("epochs=20", r"--where epochs=20: epochs is empty in every cell; did you mean 'optimizer\.epochs'\?"),
        ("weight_max=1", r"--where weight_max=1: weight_max is empty in every cell$"),
    ],
)
def test_filters_name_what_is_wrong_and_what_there_is(where: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        select(TABLE, [where])
    assert "\n" not in str(caught.value)


def test_filters_that_leave_nothing_are_an_error() -> None:
    with pytest.raises(SpecError, match="no cell is left by --where method=dense --where seed=1"):
        select(TABLE, ["method=dense", "seed=1"])
