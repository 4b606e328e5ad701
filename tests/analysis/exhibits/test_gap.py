"""The exhibit of the suite `gap`: docs/gap.md's rule, on rows and curves made by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import suite_rows
import synthetic

from analysis.build import exhibits
from analysis.data.conditions import Results, summarize
from analysis.data.read import load
from analysis.exhibits import gap
from analysis.exhibits.gap import goes_as_figure4, within
from analysis.output.exhibit import Written
from benchmark import suites

EPOCHS = range(1, 9)  # a quarter of them: 2
FIRST = [0.3, 0.09, 0.08, 0.07, 0.06, 0.05, 0.05, 0.05]
SECOND = [0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2]
THIRD = [1.0] * 8


def made() -> list[dict[str, Any]]:
    """Straight-through keeps the printed share after 40 epochs; the others keep three times it."""
    rows = []
    for spec in suites.load("gap").specs:
        good = spec.method.get("estimator") == "straight_through" and spec.optimizer.epochs == 40
        good = good and spec.method["alpha"] == 5e-4 and not spec.data.standardize
        accuracy = 98.16 if spec.method["name"] == "dense" else 97.7 if good else 97.2
        share = (0.0248 if good else 0.0744) * (1 + 0.01 * spec.seed)
        rows.append(suite_rows.done(spec, accuracy=accuracy + 0.01 * spec.seed, density=share))
    return rows


def built(folder: Path, rows: list[dict[str, Any]]) -> tuple[Written, list[dict[str, str]]]:
    written = exhibits(Results(load([suite_rows.write(folder / "in", rows)])))["gap"](folder)
    path = folder / "gap.csv"
    return written, list(csv.DictReader(path.open())) if path.exists() else []


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def test_each_set_up_of_the_suite_is_a_line_and_the_best_comes_first(tmp_path: Path) -> None:
    rows = made()
    written, lines = built(tmp_path, rows)
    assert len(lines) == len({(line["set_up"], line["alpha"]) for line in lines}) == 24 + 16
    assert lines[0]["set_up"] == "estimator straight through, epochs 40"
    assert (lines[0]["density_met"], lines[0]["accuracy_met"], lines[0]["dense_accuracy_met"]) == ("True",) * 3
    assert lines[0]["figure_4_met"] == "", "no traces: not run"
    assert float(lines[0]["remaining_percent_mean"]) == pytest.approx(2.48 * 1.02)
    assert {line["met"] for line in lines[1:]} == {"1"}
    assert {line["dense_accuracy_settled"] for line in lines} == {"True"}
    assert set(written.run_ids) == {row["run_id"] for row in rows}
    taus = {line["set_up"]: float(line["tau"] or "nan") for line in lines if line["alpha"] == "0.0005"}
    assert taus["as stated"] == pytest.approx(5e-4 * 0.01 * 20 * 938 / 0.1)
    assert taus["batch size 128"] == pytest.approx(5e-4 * 0.01 * 20 * 469 / 0.1)
    assert taus["momentum 0.95"] == pytest.approx(2 * taus["as stated"])
    assert math.isnan(taus["lr 0.001, momentum 0.0, adam"])


def test_a_seed_without_the_curve_of_a_layer_is_not_judged_by_it(tmp_path: Path) -> None:
    rows = made()
    traced = [row for row in rows if row["method"] == "dst"]
    curves = {"fc1.weight": FIRST, "fc2.weight": SECOND, "fc3.weight": THIRD}
    layers = [line for row in traced for line in suite_rows.layers(row, dict.fromkeys(curves, (100, 5)))]
    traces = [
        line
        for row in traced
        for name, curve in curves.items()
        if (row["seed"], name) != (1, "fc3.weight")
        for line in suite_rows.records(row, {f"density/{name}": curve})
    ]
    found = Results(load([suite_rows.write(tmp_path, rows, traces=traces, layers=layers)]))
    assert {tuple(one.figure4.items()) for one in gap.set_ups(found)} == {tuple((seed, True) for seed in (0, 2, 3, 4))}


def test_the_dense_twin_has_the_same_precision(tmp_path: Path) -> None:
    """bfloat16 comes before float32 in the order of conditions."""

    def in_bfloat16(row: dict[str, Any]) -> dict[str, Any]:
        return synthetic.changed(row, lambda spec: spec.update(precision="bfloat16"))

    sparse = [synthetic.cell(gap.NETWORK, "dst", seed, alpha=5e-4) for seed in (0, 1)]
    dense = [synthetic.cell(gap.NETWORK, "dense", seed) for seed in (0, 1)]
    rows = [*sparse, *map(in_bfloat16, dense)]
    without = Results(load([synthetic.write(tmp_path / "without", rows)]))
    both = Results(load([synthetic.write(tmp_path / "both", [*rows, *map(in_bfloat16, sparse), *dense])]))
    assert [gap.twin_of(c, without) for c in without.conditions if c.method == "dst"] == [None]
    pairs = [(c, gap.twin_of(c, both)) for c in both.conditions if c.method == "dst"]
    precisions = [(c.spec["precision"], twin and twin.spec["precision"]) for c, twin in pairs]
    assert precisions == [("bfloat16",) * 2, ("float32",) * 2]


def test_without_another_set_up_there_is_nothing_to_show(tmp_path: Path) -> None:
    rows = [suite_rows.done(s, accuracy=97.0, density=0.08) for s in suites.load("gap").specs if s.seed == 0][:1]
    written, lines = built(tmp_path, rows)
    assert (written.remark, lines) == ("not run", [])


@pytest.mark.parametrize(
    ("values", "met", "settled"),
    [
        ([2.4, 2.5, 2.45, 2.5, 2.4], True, True),
        ([2.4, 2.5, 2.45], True, False),  # three seeds settle nothing
        ([2.0, 4.0, 2.5, 2.0, 3.5], True, False),  # mean 2.8; the interval passes 3.1
        ([8.0, 8.1, 8.2, 8.3, 8.4], False, True),
        ([3.0, 3.3, 3.2, 3.1, 3.2], False, False),  # mean 3.16; the interval begins at 3.02
        ([], None, True),
    ],
)
def test_a_target_is_met_by_the_mean_and_settled_by_the_interval(
    values: list[float], met: bool | None, settled: bool
) -> None:
    verdict = within("density", summarize(values, expected=5), 1.984, 3.1)
    assert (verdict.met, verdict.settled) == (met, settled)


@pytest.mark.parametrize(
    ("first", "second", "third", "want"),
    [
        (FIRST, SECOND, THIRD, True),
        (FIRST, SECOND, [1.0] * 7 + [0.98], False),  # layer 3 loses weights
        ([0.3, 0.2, *FIRST[2:]], SECOND, THIRD, False),  # layer 1 is below 10 % in epoch 3 only
        (FIRST, [*SECOND[:7], 0.04], THIRD, False),  # layer 2 becomes the sparsest
        (FIRST, [0.6, 0.5, 0.4, 0.3, 0.2, 0.206, 0.2, 0.2], THIRD, False),  # layer 2 gains 0.6 points
        (FIRST, [0.6, 0.5, 0.4, 0.3, 0.2, 0.204, 0.2, 0.2], THIRD, True),
    ],
)
def test_the_course_of_figure_4(first: list[float], second: list[float], third: list[float], want: bool) -> None:
    assert goes_as_figure4(*(pd.Series(layer, index=EPOCHS) for layer in (first, second, third))) is want


def test_the_finding_says_how_many_are_settled_and_the_note_that_resets_lower_the_threshold(tmp_path: Path) -> None:
    rows = [row for row in made() if row["seed"] < 3]
    written, lines = built(tmp_path, rows)
    full = sum(line["met"] == "4" for line in lines)
    assert written.finding.startswith(f"{full} of {len(lines)} set-ups meet all four targets")
    assert "Verdicts with fewer than 5 seeds are not settled." in written.finding
    assert any(note.startswith("Largest t:") and "resets lower it" in note for note in gap.NOTES)


def test_two_of_which_no_verdict_is_settled_are_said_to_be_so() -> None:
    one = SimpleNamespace(met=4, settled=False, label="a", condition=SimpleNamespace(alpha=5e-4))
    one.density = one.accuracy = lambda: summarize([2.5, 2.5, 2.5], expected=3)
    other = SimpleNamespace(**{**vars(one), "met": 1})
    assert gap._finding([one, one, other]).startswith("2 of 3 set-ups meet all four targets, none of them settled. ")  # type: ignore[list-item]


def test_a_set_up_is_ranked_by_the_density_that_is_shown() -> None:
    """Kept 1.1, 1.5 and 8.0 %: shown is the median 1.5, further from 2.48 than the mean 3.5."""
    shown = SimpleNamespace(summary=lambda column, scale=1.0: summarize([1.1, 1.5, 8.0], expected=3))
    one = gap.SetUp(shown, shown, None, SimpleNamespace(density_percent=2.48), None)  # type: ignore[arg-type]
    assert one.distance == pytest.approx(math.log(2.48 / 1.5))


def test_a_set_up_that_keeps_nothing_comes_last_of_its_equals_and_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a reset a large alpha can prune everything; the logarithm of 0 is no number."""
    drawn: list[Any] = []
    monkeypatch.setattr(
        "analysis.output.exhibit.save",
        lambda figure, out, name: drawn.extend(y for line in figure.axes[0].lines for y in line.get_ydata()) or [],
    )
    rows = made()
    for row in rows:
        if '"threshold":"scalar"' in row["spec"]:
            row |= dict.fromkeys(("density", "min_density", "density_at_best_test_accuracy"), 0.0)
    _, lines = built(tmp_path, rows)
    assert lines[-1]["set_up"] == "threshold scalar"
    assert min(drawn) == 0.01
