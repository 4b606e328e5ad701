"""Which cells are one condition, and what a hyperparameter that was added to a method later changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.compare import compare
from analysis.data.comparable import density_matches, groups
from analysis.data.conditions import Condition, Results, label, spec_without_seed
from analysis.data.matching import matching
from analysis.data.read import load
from analysis.data.selection import dst_conditions, left_out, left_out_counts, lost_note
from analysis.exhibits.table1_to_3 import paper_table
from analysis.output.page import page
from analysis.output.page_runs import run_groups
from analysis.paper import printed

MODEL = "lenet-300-100"


def with_method(row: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    """The row with more hyperparameters in its spec, as a later version of its method would have them."""
    return synthetic.changed(row, lambda spec: spec["method"].update(hyperparameters))


def cells(method: str = "dst", **given: Any) -> list[dict[str, Any]]:
    chosen = {"alpha": 5e-4} if method == "dst" else {"density": 0.05} if method == "set" else {}
    return [synthetic.cell(MODEL, method, seed, **chosen, **given) for seed in (0, 1)]


def results(folder: Path, rows: list[dict[str, Any]]) -> Results:
    return Results(load([synthetic.write(folder, rows)]))


@pytest.fixture
def added(tmp_path: Path) -> Results:
    """DST and SET, each as before `granularity` was added (or at its default, which is the same) and with it."""
    rows = [*cells("dense"), *cells("dst"), *cells("set")]
    rows += [with_method(row, granularity="filter") for row in [*cells("dst"), *cells("set")]]
    return results(tmp_path, rows)


def of(found: Results, method: str) -> list[Condition]:
    return [condition for condition in found.conditions if condition.method == method]


def test_seed_and_step_records_make_no_condition(tmp_path: Path) -> None:
    rows = [synthetic.cell(MODEL, "dst", seed, alpha=5e-4, step_records=seed or None) for seed in (0, 1)]
    (condition,) = results(tmp_path, rows).conditions
    assert condition.seeds == "n=2"
    assert {spec_without_seed(row["spec"]) for row in rows} == {condition.key}


@pytest.mark.parametrize(("method", "label"), [("dst", "alpha 0.0005"), ("set", "density 0.05")])
def test_an_added_hyperparameter_is_in_the_label_where_it_is_not_the_default(
    added: Results, method: str, label: str
) -> None:
    default, other = sorted(of(added, method), key=lambda condition: len(condition.variant))
    assert (default.label, default.variant) == (label, {})
    assert (other.label, other.variant) == (f"{label}, granularity filter", {"granularity": "filter"})
    assert (default.as_published, other.as_published) == (True, False)


def test_an_added_hyperparameter_makes_a_variant_that_no_exhibit_takes_for_the_method(added: Results) -> None:
    assert [c.variant for c in dst_conditions(added, "mnist", MODEL)] == [{}]
    (group,) = groups(added.conditions)
    assert [c.label for c in group.sparse] == ["alpha 0.0005", "density 0.05"]
    lines = [line for line in paper_table("table1", added.conditions).lines if line.source == "ours"]
    assert [line.label for line in lines if line.model == MODEL] == ["alpha 0.0005"]


def test_cells_at_the_default_are_the_same_condition_as_before_it_was_added(tmp_path: Path) -> None:
    alone, both = (
        results(tmp_path / "a", cells()),
        results(tmp_path / "b", [*cells(), *(with_method(row, granularity="filter") for row in cells())]),
    )
    (before,), (after, _) = alone.conditions, sorted(both.conditions, key=lambda condition: len(condition.variant))
    assert (before.key, before.label, before.as_published) == (after.key, after.label, after.as_published)
    found, counted = compare(alone.tables, both.tables)
    assert {change.kind for change in found} == {"only in B"}
    assert counted["bit-identical"] == 2


def test_hyperparameters_of_another_version_are_no_variant(tmp_path: Path) -> None:
    second = [with_method(row, version=2, granularity="row") for row in cells()]
    assert {c.label for c in results(tmp_path, [*cells(), *second]).conditions} == {"alpha 0.0005"}


@pytest.mark.parametrize("more", [{}, {"granularity": "row"}])
def test_of_two_versions_of_a_method_the_later_is_shown_and_the_other_is_named(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """Also where all cells of the later version have a hyperparameter that the earlier one lacks."""
    earlier = [*cells("dst", accuracy=95.0), *cells("set", accuracy=95.0)]
    later = [with_method(row, version=9, **more) for row in [*cells("dst"), *cells("set")]]
    found = results(tmp_path, [*cells("dense"), *earlier, *later])
    assert [(c.spec["method"]["version"], c.seeds) for c in of(found, "dst") + of(found, "set")] == [(9, "n=2")] * 2
    (group,) = groups(found.conditions)
    (match,) = density_matches(group)
    assert {c.summary("test_accuracy").mean for c in match.conditions} == {97.0}
    (stated,) = {m.condition.key for m in matching(printed.targets("table1")[0], found.conditions)}
    assert '"version": 9' in stated
    assert left_out(of(found, "set")) == [
        "Left out of every mean: lenet-300-100 set density 0.05: 2 of an earlier version of the method."
    ]
    assert lost_note(found) == ["Cells in no mean of any exhibit: 4 of an earlier version of the method."]
    assert left_out_counts(found, of(found, "dst")) == ["left out: 2 of an earlier version of the method"]
    assert "or are of an earlier version of their method" in page(found, [])


def test_a_version_without_cells_of_the_suite_and_a_variant_replace_no_earlier_version(tmp_path: Path) -> None:
    departing = [with_method(row, version=9) for row in cells("set", departs="epochs")]
    variant = [with_method(row, version=9, granularity="row") for row in cells("dst")]
    other = [with_method(row, version=9, alpha=1e-3) for row in cells("dst")]
    found = results(tmp_path, [*cells("set"), *departing, *cells("dst"), *variant, *other])
    assert sorted(c.spec["method"]["version"] for c in of(found, "dst")) == [1, 9, 9]
    assert sorted(len(c.rows) for c in of(found, "set")) == [0, 2]


def test_cells_with_and_without_the_reset_are_two_conditions_and_named_apart(tmp_path: Path) -> None:
    found = results(tmp_path, [*cells(), *cells(reset_density=None)])
    assert sorted((c.label, c.seeds) for c in found.conditions) == [
        ("alpha 0.0005", "n=2"),
        ("alpha 0.0005, reset_density None", "n=2"),
    ]
    groups_of_runs = run_groups(found.tables.results)
    assert {group.condition for group in groups_of_runs} == {c.label for c in found.conditions}


def test_the_decay_of_thresholds_in_which_the_protocols_differ_makes_no_variant(tmp_path: Path) -> None:
    official = [with_method(row, threshold_weight_decay=5e-4) for row in cells(protocol="official")]
    found = results(tmp_path, [*cells(protocol="paper"), *official]).conditions
    assert [c.variant for c in found] == [{}, {}]
    assert all(c.follows_protocol for c in found)


@pytest.mark.parametrize(
    "changed", [{"threshold": "matrix"}, {"estimator": "straight_through"}, {"reset_density": None}]
)
def test_dst_with_another_threshold_estimator_or_no_reset_is_not_as_published(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    (condition,) = results(tmp_path, cells(**changed)).conditions
    assert condition.variant == changed
    assert not condition.follows_protocol


@pytest.mark.parametrize(
    ("method", "hyperparameters", "want"),
    [
        ("str", {"threshold_weight_decay": 0.0145}, "initial_s -10, threshold_weight_decay 0.0145"),
        ("variational_dropout", {"threshold": 2.0}, "initial_log_sigma2 -10, threshold 2"),
        ("dense", {}, ""),
        ("static", {"density": 0.05}, "density 0.05"),
    ],
)
def test_a_method_without_alpha_and_density_is_named_by_its_numbers(
    method: str, hyperparameters: dict[str, Any], want: str
) -> None:
    row = synthetic.cell("lenet-300-100", method, 0, **hyperparameters)
    assert label(json.loads(row["spec"])) == want
