"""`check` of one row: numbers that make no sense, and columns that a table of an earlier version lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.commands import check, check_files, check_tables
from benchmark.commands.check_rows import Records, problems
from benchmark.commands.check_tables import Table
from benchmark.results import MEASURED, REQUIRED

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results/mnist-lenet-5-caffe"
DENSE = "909810bd7d64"
SPARSE = "1a64e346ea9e"
LATER = [name for name in MEASURED if name not in REQUIRED]
LOSSES = Records({(epoch, None, "train_loss"): 0.1 for epoch in range(1, 21)})


@pytest.fixture(scope="module")
def committed() -> Table:
    return check_tables.read(COMMITTED / "results.csv", beside=check_files.content(COMMITTED).files)


def found(table: Table, records: Records | None = None, /, **changed: str) -> list[str]:
    """The problems of the dense cell with other values."""
    return list(problems(table.rows[DENSE] | changed, table.layers[DENSE], records or table.records[DENSE]))


@pytest.mark.parametrize("value", ["0", "-20"])
def test_a_row_without_epochs_is_named(committed: Table, value: str) -> None:
    said = found(committed, epochs=value)
    assert said[0].startswith(f"epochs is {value}, but its spec trains 20: ")
    assert not any("multiple" in problem for problem in said)
    (*_, last) = found(committed, LOSSES, epochs=value)
    assert last.startswith("traces.csv has test_accuracy of 0 epochs and density of 0: it must have both of every")


@pytest.mark.parametrize(
    "column",
    [
        *("density_at_best_test_accuracy", "test_accuracy_at_min_density", "test_top5_accuracy"),
        *("nonzero_density", "threshold_resets", "mask_flips"),
    ],
)
def test_columns_that_records_decide_are_compared_with_them(committed: Table, column: str) -> None:
    row, records = committed.rows[SPARSE], committed.records[SPARSE]
    assert list(problems(row, committed.layers[SPARSE], records)) == []
    changed = {column: str(float(row[column]) * 0.999 + 0.0001)}
    said = list(problems(row | changed, committed.layers[SPARSE], records))
    assert any(text.startswith(f"{column} is ") and ", but traces.csv says " in text for text in said), said


@pytest.mark.parametrize("absent", ["", "nan"])
def test_columns_that_came_later_may_be_absent(committed: Table, absent: str) -> None:
    assert found(committed) == []
    for name in LATER:
        assert found(committed, **{name: absent}) == [], name
    assert found(committed, **dict.fromkeys(LATER, absent)) == []


def test_costs_are_compared_with_those_of_another_seed_only_where_both_have_them(committed: Table) -> None:
    mine = committed.rows[DENSE]
    cost = mine["train_flops"]
    assert check._other_cost(mine, mine | {"train_flops": "5"}) == f"train_flops is {cost}, not the 5"
    for absent in ("", "nan"):
        assert check._other_cost(mine, mine | {"train_flops": absent}) == ""
