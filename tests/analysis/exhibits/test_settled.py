"""Where a network that was reset is read, and what makes methods agree by construction."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from benchmark.suites import mnist

Row = dict[str, Any]
MODEL = "lenet-300-100"
WEIGHTS = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
EPOCHS = 20
# Kept shares of fc1, fc2 and fc3 at the end, and soon after a reset of fc1.
PRUNED, RESET = (0.02, 0.1, 0.9), (0.8, 0.09, 0.7)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def density(shares: Sequence[float]) -> float:
    return sum(s * w for s, w in zip(shares, WEIGHTS.values(), strict=True)) / sum(WEIGHTS.values())


def kept(shares: Sequence[float]) -> dict[str, tuple[int, int]]:
    return {name: (w, round(s * w)) for s, (name, w) in zip(shares, WEIGHTS.items(), strict=True)}


class Made:
    """The rows, traces and layers of made-up cells."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.traces: list[Row] = []
        self.layers: list[Row] = []

    def dense(self, seed: int) -> None:
        self.rows.append(suite_rows.done(mnist.lenet(MODEL, "dense", seed), accuracy=98.2))

    def dst(self, seed: int, *, reset_in: int | None = None, lowest: float = 97.0, **hyperparameters: Any) -> Row:
        """Pruned at the end of every epoch but those from `reset_in` on; each epoch's accuracy is its number."""
        ends = [RESET if reset_in and epoch >= reset_in else PRUNED for epoch in range(1, EPOCHS + 1)]
        if reset_in:
            ends[reset_in - 2] = (0.015, 0.1, 0.9)  # the lowest density
        last, least = ends[-1], min(ends, key=density)
        spec = mnist.lenet(MODEL, "dst", seed, **({"alpha": 5e-4} | hyperparameters))
        row = suite_rows.done(
            spec, accuracy=90.0, density=density(last), min_density=density(least),
            test_accuracy_at_min_density=lowest if reset_in else 90.0, threshold_resets=int(reset_in is not None),
        )  # fmt: skip
        self.rows.append(row)
        self.traces += suite_rows.records(row, {
            "density": [density(shares) for shares in ends],
            **{f"density/{name}": [shares[i] for shares in ends] for i, name in enumerate(WEIGHTS)},
            "threshold_resets": [float(bool(reset_in) and epoch >= (reset_in or 0)) for epoch in range(1, EPOCHS + 1)],
            "test_accuracy": [float(epoch) for epoch in range(1, EPOCHS + 1)],
        })  # fmt: skip
        self.layers += suite_rows.layers(row, kept(last))
        return row

    def fixed(self, method: str, seed: int, shares: Sequence[float], **given: Any) -> None:
        row = suite_rows.done(mnist.lenet(MODEL, method, seed, **given), accuracy=96.0, density=given["density"])
        self.rows.append(row)
        self.layers += suite_rows.layers(row, kept(shares))

    def write(self, folder: Path) -> Results:
        suite_rows.write(folder, self.rows, traces=self.traces, layers=self.layers)
        return Results(load([folder]))


def built(results: Results, name: str, out: Path) -> list[dict[str, str]]:
    out.mkdir(exist_ok=True)
    exhibits(results)[name](out)
    path = out / f"{name}.csv"
    with path.open() as file:
        return list(csv.DictReader(file))


def test_layers_are_ranked_where_none_was_just_reset(tmp_path: Path) -> None:
    """At the last epoch fc1 keeps most in seed 2, which was reset in its last epoch, and least in the others."""
    made = Made()
    for seed, reset_in in enumerate((None, None, 20)):
        made.dst(seed, reset_in=reset_in)
    lines = built(made.write(tmp_path / "in"), "pattern-consistency", tmp_path / "out")
    assert {line["over"]: float(line["kendalls_w"]) for line in lines} == {"seeds": 1.0}
    assert {line["rankings"] for line in lines} == {"3"}


def test_a_reset_run_without_records_is_in_no_ranking(tmp_path: Path) -> None:
    made = Made()
    for seed, reset_in in enumerate((None, None, 20)):
        made.dst(seed, reset_in=reset_in)
    made.traces = [line for line in made.traces if not line["name"].startswith("density/")]
    lines = built(made.write(tmp_path / "in"), "pattern-consistency", tmp_path / "out")
    assert {line["rankings"] for line in lines} == {"2"}


def test_compact_networks_are_those_of_the_epoch_of_lowest_density(tmp_path: Path) -> None:
    made = Made()
    for seed in range(3):
        made.dense(seed)
        made.dst(seed, reset_in=18, lowest=97.0 + seed / 10)
    lines = {line["network"]: line for line in built(made.write(tmp_path / "in"), "compact-networks", tmp_path / "out")}
    assert lines["compact"]["widths"] == f"{round(0.015 * 300)}-{round(0.1 * 100)}"
    assert float(lines["sparse"]["test_accuracy_mean"]) == pytest.approx(97.1)
    assert float(lines["sparse"]["weights"]) == pytest.approx(0.015 * 235_200 + 0.1 * 30_000 + 900)
    assert float(lines["dense"]["minus_sparse_mean"]) == pytest.approx(98.2 - 97.1)


def test_methods_with_a_fixed_budget_are_in_no_agreement_of_methods(tmp_path: Path) -> None:
    """static and set keep in each layer what their budget says; the others move weights between layers."""
    made = Made()
    target = density(PRUNED)
    for seed in range(2):
        made.dst(seed)
        for method in ("static", "set"):
            made.fixed(method, seed, (0.03, 0.09, 0.3), density=target)
        made.fixed("sparse_momentum", seed, (0.03 + seed / 1000, 0.09, 0.3), density=target)
    lines = built(made.write(tmp_path / "in"), "pattern-consistency", tmp_path / "out")
    compared = {(line["first"], line["second"]) for line in lines if line["over"] == "methods"}
    assert compared == {("DST", "Sparse Momentum")} or compared == {("Sparse Momentum", "DST")}


def test_a_fixed_budget_of_one_seed_cannot_be_told_and_is_left_out(tmp_path: Path) -> None:
    made = Made()
    made.dst(0)
    made.dst(1)
    made.fixed("sparse_momentum", 0, (0.03, 0.09, 0.3), density=density(PRUNED))
    lines = built(made.write(tmp_path / "in"), "pattern-consistency", tmp_path / "out")
    assert {line["over"] for line in lines} == {"seeds"}


def test_the_resets_are_marked_in_the_epochs_that_have_them(tmp_path: Path) -> None:
    made = Made()
    rows = [made.dst(0), made.dst(1, reset_in=18)]
    lines = built(made.write(tmp_path / "in"), f"mnist-{MODEL}-resets", tmp_path / "out")
    assert {line["run_id"] for line in lines} == {row["run_id"] for row in rows}
    marked = [(line["seed"], line["epoch"]) for line in lines if line["resets"] != "0"]
    assert marked == [("1", "18")]
    at = {line["epoch"]: float(line["density_percent"]) for line in lines if line["seed"] == "1"}
    assert at["17"] == pytest.approx(100 * density((0.015, 0.1, 0.9)))
    assert at["20"] == pytest.approx(100 * density(RESET))


def test_without_a_reset_there_is_no_figure_of_resets(tmp_path: Path) -> None:
    made = Made()
    made.dst(0)
    written = exhibits(made.write(tmp_path / "in"))["threshold-resets"](tmp_path)
    assert (written.files, written.remark) == ((), "no cell with a reset of thresholds and traces.csv")


def test_rows_without_the_reset_are_in_no_exhibit_with_those_that_have_it(tmp_path: Path) -> None:
    made = Made()
    for seed in range(2):
        made.dense(seed)
        made.dst(seed, reset_in=18)
    never = {made.dst(seed, reset_density=None)["run_id"] for seed in range(2)}
    results = made.write(tmp_path / "in")
    with_it = {row["run_id"] for row in made.rows if row["method"] == "dst"} - never
    for name in ("pattern-consistency", "compact-networks", f"mnist-{MODEL}-resets", "mnist-accuracy-density",
                 "mnist-figure3", "mnist-figure7", "alpha-interpolation", "figure4"):  # fmt: skip
        shown = set(exhibits(results)[name](tmp_path).run_ids)
        assert with_it & shown, name
        assert not never & shown, name


def test_dense_networks_have_no_accuracy_at_the_lowest_density(tmp_path: Path) -> None:
    made = Made()
    made.dense(0)
    made.dst(0)
    found = {c.method: c.summary("test_accuracy_at_min_density") for c in made.write(tmp_path / "in").conditions}
    assert (found["dense"].n, found["dst"].n) == (0, 1)


def test_the_spread_of_a_lottery_is_shown_as_its_range(tmp_path: Path) -> None:
    from analysis.data.conditions import summarize
    from analysis.output.numbers import centre_and_ends, percentage_and_interval, percentage_interval, with_seeds

    lottery, steady = [2.5, 2.6, 3.9, 2.6, 74.4], [2.4, 2.5, 2.6]
    wide, narrow = summarize(lottery, expected=5), summarize(steady, expected=5)
    assert with_seeds(wide) == percentage_and_interval(wide) == "2.60 [2.50, 74.40] (n=5)"
    assert centre_and_ends(wide) == (statistics.median(lottery), 2.5, 74.4)
    assert all(limit != limit for limit in percentage_interval(wide))
    assert with_seeds(narrow) == "2.50 ± 0.10 (n=3/5)"
    assert percentage_and_interval(narrow) == "2.50 ± 0.10 (n=3/5) [2.25, 2.75]"
    assert with_seeds(summarize([3.0], expected=1)) == "3.00 (n=1)"
    assert with_seeds(summarize([], expected=1)) == "not run"
