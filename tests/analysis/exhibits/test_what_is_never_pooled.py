"""No exhibit mixes cells with the reset of thresholds and cells without it, nor any other variant of a method."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import synthetic
import synthetic_figures
import synthetic_methods

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.claims.appendix import reset_widens_alphas

Row = dict[str, Any]
VARIANTS: tuple[dict[str, Any], ...] = (
    {"reset_density": None},
    {"reset_density": 0.02},
    {"initial_threshold": -1e-4},
    {"reset_rule": "once"},
)
# the section whose claim, and the exhibits whose lines, compare them
ABOUT_VARIANTS = ("A.1", "gap", "gap-networks", "reset-rules")


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])
        yield


def curves() -> list[Row]:
    """The figures of the paper: VGG-16 and the LeNets, with traces and layers."""
    rows = [*synthetic_figures.cifar10((0, 1)), *synthetic_figures.mnist((0, 1))]
    return [row for row in rows if row["model"] in ("vgg16", "lenet-300-100")]


def methods() -> list[Row]:
    """The exhibits of ours: every method on lenet-300-100 and LSTM-a, with FLOPs, seconds and layers."""
    models = ("lenet-300-100", "lstm-a")
    rows = [row for seed in (0, 1) for row in [*synthetic_methods.mnist(seed), *synthetic_methods.compact(seed)]]
    return [row for row in rows if row["model"] in models]


def variants(rows: list[Row], **hyperparameters: Any) -> list[Row]:
    """The DST rows as a variant, which keeps and reaches far less than they and than other variants."""
    number = VARIANTS.index(hyperparameters) if hyperparameters in VARIANTS else 0
    accuracy = {"test_accuracy": 11.0 + number, "best_test_accuracy": 16.0 + number}
    extremes = {"weight_max": 90.0 + number, "threshold_min": -90.0 - number, "threshold_max": 90.0 + number}
    return [
        synthetic.changed(row, lambda spec: spec["method"].update(hyperparameters))
        | {"density": row["density"] / (10 + number), **accuracy, **extremes}
        for row in rows
        if row["method"] == "dst"
    ]


def tables(folder: Path, world: str, rows: list[Row]) -> Results:
    write = synthetic_figures.write if world == "curves" else synthetic_methods.write
    return Results(load([write(folder, rows)]))


def written(results: Results, out: Path) -> dict[str, list[dict[str, str]]]:
    """exhibit -> its records, of all exhibits that have any; without those that compare variants."""
    out.mkdir()
    for make in exhibits(results).values():
        make(out)
    found = {path.stem: list(csv.DictReader(path.open())) for path in sorted(out.glob("*.csv"))}
    return {
        name: [r for r in records if r.get("section") not in ABOUT_VARIANTS]
        for name, records in found.items()
        if name not in ABOUT_VARIANTS
    }


@pytest.fixture(scope="module", params=["curves", "methods"])
def world(request: pytest.FixtureRequest) -> tuple[str, list[Row]]:
    return request.param, curves() if request.param == "curves" else methods()


@pytest.fixture(scope="module")
def before(world: tuple[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The records of every exhibit without variants."""
    folder = tmp_path_factory.mktemp("before")
    return written(tables(folder / "in", *world), folder / "out")


def test_no_exhibit_mixes_variants_with_each_other_or_with_the_method_as_published(
    world: tuple[str, list[Row]], before: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    name, rows = world
    both = [*rows, *(row for variant in VARIANTS for row in variants(rows, **variant))]
    specs = {row["run_id"]: json.loads(row["spec"])["method"] for row in both}
    assert len(specs) == len(both)
    after = written(tables(tmp_path / "both", name, both), tmp_path / "after")
    assert set(before) == set(after)
    assert len(after) > 10
    for exhibit, records in after.items():
        for record in records:
            kinds = {_kind(specs[run_id]) for run_id in _run_ids(record) if specs[run_id]["name"] == "dst"}
            assert len(kinds) <= 1, (exhibit, record)
    for exhibit, records in before.items():
        assert [record for record in records if record not in after[exhibit]] == [], exhibit


def test_another_rule_is_not_as_published_where_it_is_in_the_table_by_itself(tmp_path: Path) -> None:
    rows = [row for row in synthetic_methods.mnist(0) if row["model"] == "lenet-5-caffe" and row["method"] == "dst"]
    for i, changed in enumerate(
        ({"reset_rule": "once"}, {"reset_rule": "recurrent_too"}, {"absolute_threshold": True})
    ):
        results = Results(load([synthetic.write(tmp_path / str(i), variants(rows, **changed))]))
        assert {c.as_published for c in results.conditions} == {False}
        assert {frozenset(c.variant.items()) for c in results.conditions} == {frozenset(changed.items())}


def test_the_claim_on_the_reset_compares_both_kinds_and_means_neither_together(tmp_path: Path) -> None:
    rows = [row for row in synthetic_methods.mnist(0) if row["model"] == "lenet-5-caffe" and row["method"] == "dst"]
    without = [row | {"status": "diverged"} for row in variants(rows, reset_density=None)]
    results = Results(load([synthetic_methods.write(tmp_path, [*rows, *without])]))
    outcome = reset_widens_alphas(results)
    assert (outcome.result, outcome.numbers) == (
        "supported",
        f"lenet-5-caffe: of {len(rows)} alphas {len(rows)} train with the reset, 0 without",
    )
    other = Results(load([synthetic_methods.write(tmp_path / "other", [*rows, *variants(rows, reset_density=0.02)])]))
    assert reset_widens_alphas(other).result == "not run", "another threshold of the reset is not its absence"
    by_rule = variants(rows, reset_rule="once")
    other = Results(load([synthetic_methods.write(tmp_path / "rule", [*by_rule, *variants(rows, reset_density=None)])]))
    assert reset_widens_alphas(other).result == "not run", "another rule is not the paper's reset"


def _kind(method: Row) -> str:
    return json.dumps({key: value for key, value in method.items() if key != "alpha"}, sort_keys=True)


def _run_ids(record: dict[str, str]) -> Iterator[str]:
    for column in ("run_id", "run_ids", "dense_run_ids"):
        yield from (run_id for run_id in record.get(column, "").split(";") if run_id)
