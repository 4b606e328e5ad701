"""What sets conditions, groups and rows of the page apart is named: no two are called the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import suite_rows
import synthetic

from analysis.data.comparable import groups, of_protocols
from analysis.data.conditions import Results, label
from analysis.data.differences import differences
from analysis.data.read import load
from analysis.output.page_results import results_table
from benchmark import suites
from benchmark.suites import gap

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results"
NETWORK = "lenet-300-100"
STANDARDISED: Mapping[str, Mapping[str, Any]] = {"data": {"standardize": True}}


def results(folder: Path, rows: list[dict[str, Any]]) -> Results:
    return Results(load([synthetic.write(folder, rows)]))


@pytest.fixture(scope="module")
def committed() -> Results:
    return Results(load([COMMITTED]))


@pytest.fixture(scope="module")
def whole_gap(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every cell of the suites gap and mnist, done."""
    rows = [
        suite_rows.done(s, accuracy=97.0, density=0.05) for name in ("gap", "mnist") for s in suites.load(name).specs
    ]
    unlike = {row["run_id"]: row for row in rows}
    return Results(load([suite_rows.write(tmp_path_factory.mktemp("gap"), unlike.values())]))


def rows_of(found: Results) -> list[dict[str, str]]:
    table = results_table(found, {})
    return [dict(zip(table.heads, row.cells, strict=True)) for row in table.rows]


@pytest.mark.parametrize("made", ["committed", "whole_gap"])
def test_no_two_rows_of_all_results_have_equal_labels(made: str, request: pytest.FixtureRequest) -> None:
    rows = rows_of(request.getfixturevalue(made))
    labels = [tuple(row.get(head, "") for head in ("Network", "Method", "Setting", "Epochs", "Source")) for row in rows]
    assert sorted(labels) == sorted(set(labels))


@pytest.mark.parametrize("made", ["committed", "whole_gap"])
def test_no_two_groups_have_one_label_and_none_is_numbered(made: str, request: pytest.FixtureRequest) -> None:
    titles = [group.title for group in groups(request.getfixturevalue(made).conditions)]
    assert sorted(titles) == sorted(set(titles))
    assert "Lenet-300-100, lr 0.01, 20 epochs, MNIST" in titles
    assert "Lenet-300-100, lr 0.01, 20 epochs, standardised inputs, MNIST" in titles
    assert not [title for title in titles if "group" in title]


def test_rows_of_all_results_show_the_epochs_that_were_trained(committed: Results) -> None:
    rows = rows_of(committed)
    trained = {(row["Method"], row["Epochs"]) for row in rows}
    assert {("lottery", "120"), ("dns", "40"), ("prune_finetune", "40"), ("obd", "40"), ("l1_filters", "25")} < trained
    dense = [row["Epochs"] for row in rows if (row["Network"], row["Method"]) == ("Lenet-300-100, MNIST", "Dense")]
    assert dense == sorted(dense, key=int)


def test_other_inputs_are_named_and_the_stated_ones_are_not(tmp_path: Path) -> None:
    given = {"alpha": 5e-4, "kept": 0.05}
    rows = [
        synthetic.cell(NETWORK, "dst", 0, **given),
        synthetic.cell(NETWORK, "dst", 0, protocol="", sections=STANDARDISED, **given),
        synthetic.cell(NETWORK, "dst", 0, protocol="", sections=STANDARDISED, epochs=40, **given),
    ]
    found = {(row["Setting"], row["Epochs"]) for row in rows_of(results(tmp_path, rows)) if row["Seeds"]}
    assert found == {
        ("alpha 0.0005", "20"),
        ("alpha 0.0005, standardised inputs", "20"),
        ("alpha 0.0005, standardised inputs", "40"),
    }


def test_another_initialization_of_no_protocol_is_a_group_of_its_own(whole_gap: Results) -> None:
    stated = next(g for g in groups(whole_gap.conditions) if g.label == "Lenet-300-100, lr 0.01, 20 epochs")
    assert {c.spec["model"].get("initialization") for c in stated.conditions} == {None}
    titles = " ".join(group.title for group in groups(whole_gap.conditions))
    assert all(f"initialization {name}" in titles for name in gap.INITIALIZATIONS)


def test_a_list_of_numbers_is_shown_with_three_digits() -> None:
    spec = {"method": {"name": "static", "pattern": [0.03894274376417234, 0.25, 1.0]}, "density": 0.05}
    assert label(spec, {"pattern": spec["method"]["pattern"]}) == "density 0.05, pattern (0.0389, 0.25, 1)"  # type: ignore[index]


def test_each_field_that_differs_is_named() -> None:
    stated = {"data": {"name": "mnist", "standardize": True}, "optimizer": {"name": "sgd", "lr": 0.1}, "precision": "a"}
    other = {
        "data": {"name": "mnist", "standardize": False},
        "optimizer": {"name": "adam", "lr": 0.1},
        "precision": "b",
    }
    assert list(differences(other, stated)) == ["inputs not standardised", "adam", "precision b"]
    assert list(differences(other, stated, without=("standardize", "precision"))) == ["adam"]


def test_a_condition_that_is_reset_all_the_time_is_beside_no_other_and_other_set_ups_give_way_to_a_protocol(
    tmp_path: Path,
) -> None:
    """LeNet-300-100 keeps at a large alpha what the last reset happened to leave."""
    cells = [s for s in suites.load("mnist").specs if s.model.name == "lenet-300-100" and s.method["name"] == "dst"]
    resets = {5e-4: 0, 1e-3: 40, 1.5e-3: 41}  # in 20 epochs
    rows = [
        suite_rows.done(spec, accuracy=97.0, density=0.02, threshold_resets=resets[alpha])
        for spec in cells
        if (alpha := float(spec.method["alpha"])) in resets
    ]
    longer = [dataclasses.replace(s.optimizer, epochs=40) for s in cells]
    other = [dataclasses.replace(s, optimizer=o, protocol=()) for s, o in zip(cells, longer, strict=True)]
    rows += [suite_rows.done(spec, accuracy=97.0, density=0.02) for spec in other]
    found = groups(Results(load([suite_rows.write(tmp_path, rows)])).conditions)
    assert [[c.alpha for c in g.conditions] for g in of_protocols(found)] == [[5e-4, 1e-3]]
    assert len(found) == 2
    assert of_protocols(found[1:]) == found[1:], "where no group is in a protocol, all are shown"
