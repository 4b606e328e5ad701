"""The exhibits that the paper lacks: on no, some and all data, their numbers recomputed from the rows."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import synthetic
import synthetic_methods

from analysis.build import exhibits
from analysis.data.comparable import groups
from analysis.data.conditions import Results, dense_twin
from analysis.data.read import load
from analysis.data.selection import lost_note
from analysis.exhibits import accuracy_density_and_flops
from analysis.exhibits.accuracy_density_and_flops import pareto
from analysis.exhibits.compact_networks import even, networks, suggested, suite_file, weights_of
from analysis.output.exhibit import Written

TABLES = ("pattern-consistency", "paired-methods", "compact-networks", "alpha-interpolation", "lstm-counting",
          "training-cost")  # fmt: skip
NAME = "lenet-300-100"
HIDDEN = (300, 100)
WEIGHTS = (784 * 300, 300 * 100, 100 * 10)


def results(folder: Path) -> Results:
    return Results(load([folder]))


def written(folder: Path, out: Path, *, only: tuple[str, ...] = ()) -> dict[str, Written]:
    out.mkdir(parents=True, exist_ok=True)
    made = exhibits(results(folder))
    return {name: make(out) for name, make in made.items() if (name in only if only else _beyond_the_paper(name))}


def _beyond_the_paper(name: str) -> bool:
    return name in TABLES or "accuracy-" in name


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """lenet-300-100 and LSTM-a of the whole grid: other models and protocols would fill the same exhibits alike."""
    return [
        row for row in synthetic_methods.full() if row["model"] in (NAME, "lstm-a") and row["protocol"] != "official"
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    return synthetic_methods.write(tmp_path_factory.mktemp("full"), rows)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, dict[str, Written]]:
    out = tmp_path_factory.mktemp("exhibits")
    return out, written(folder, out, only=TABLES)


def done(rows: list[dict[str, Any]], **wanted: Any) -> dict[int, dict[str, Any]]:
    """seed -> the row of NAME that has these values and its own widths."""
    given = {"model": NAME, **wanted}
    return {
        row["seed"]: row
        for row in rows
        if all(row[key] == value for key, value in given.items()) and "widths" not in row["spec"]
    }


def test_full_tables_fill_every_exhibit_with_a_finding_and_run_ids(built: tuple[Path, dict[str, Written]]) -> None:
    out, found = built
    assert set(found) == set(TABLES)
    for name, exhibit in found.items():
        kinds = {path.suffix for path in exhibit.files}
        assert {".md", ".tex", ".csv", ".pdf", ".png", ".svg"} <= kinds, name
        assert exhibit.finding.endswith(".")
        assert any(mark.isdigit() for mark in exhibit.finding)
        assert exhibit.run_ids
        assert all(path.parent == out for path in exhibit.files)


def test_pending_cells_alone_leave_every_exhibit_unwritten(tmp_path: Path) -> None:
    pending = [synthetic_methods.cell(NAME, method, 0, status="pending") for method in ("dense", "static")]
    found = written(synthetic.write(tmp_path / "in", pending), tmp_path / "out")
    assert {*TABLES, "accuracy-density", "accuracy-flops"} == set(found)
    assert all(not exhibit.files and exhibit.remark for exhibit in found.values())


@pytest.mark.parametrize("method", ["dst", "set"])
def test_one_sparse_cell_without_layers_or_a_dense_twin_breaks_nothing(method: str, tmp_path: Path) -> None:
    given = {"alpha": 5e-4} if method == "dst" else {"density": 0.05}
    rows = [synthetic_methods.cell(NAME, method, 0, kept=0.05, **given)]
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out")
    assert found["mnist-accuracy-density"].files
    assert not found["mnist-accuracy-flops"].files
    assert not found["pattern-consistency"].files
    assert not found["training-cost"].files
    assert bool(found["alpha-interpolation"].files) == (method == "dst")


def test_rows_without_flops_have_no_place_against_flops(tmp_path: Path) -> None:
    found = written(
        synthetic.write(tmp_path / "in", synthetic.vgg16()), tmp_path / "out", only=("cifar10-accuracy-flops",)
    )
    assert found["cifar10-accuracy-flops"].remark == "no dense run with FLOPs to compare with"
    assert not found["cifar10-accuracy-flops"].files


def test_diverged_and_departing_cells_are_in_no_exhibit(tmp_path: Path) -> None:
    rows = [
        synthetic_methods.cell(NAME, "set", seed, density=0.05, kept=0.05, **more)
        for seed, more in ((0, {}), (1, {"status": "diverged"}), (2, {"departs": "optimizer.epochs=1 (suite: 20)"}))
    ]
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("mnist-accuracy-density",))
    assert found["mnist-accuracy-density"].run_ids == (rows[0]["run_id"],)
    note = "Cells in no mean of any exhibit: 1 departing from the suite, 1 diverged."
    assert lost_note(results(tmp_path / "in")) == [note]
    line = synthetic_methods.read(tmp_path / "out" / "mnist-accuracy-density.csv")[0]
    assert (line["n"], line["expected"]) == ("1", "2")


def test_paired_differences_are_those_of_the_seeds(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    lines = synthetic_methods.read(built[0] / "paired-methods.csv")
    line = next(
        x for x in lines if x["model"] == NAME and x["density_target"] == "0.0248" and x["second_method"] == "set"
    )
    assert (line["first_method"], line["first_alpha"]) == ("dst", "0.001")
    ours_, theirs = done(rows, method="dst", alpha=1e-3), done(rows, method="set", density_target=0.0248)
    gaps = [ours_[seed]["test_accuracy"] - theirs[seed]["test_accuracy"] for seed in (0, 1, 2)]
    assert float(line["difference_mean"]) == pytest.approx(statistics.fmean(gaps))
    assert min(gaps) - 1e-9 <= float(line["bootstrap_low"]) < float(line["bootstrap_high"]) <= max(gaps) + 1e-9
    better = [a["test_accuracy"] > b["test_accuracy"] for a in ours_.values() for b in theirs.values()]
    assert float(line["probability_of_improvement"]) == pytest.approx(statistics.fmean(better))


def test_the_compact_network_is_the_rules_and_stands_beside_its_result(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    lines = synthetic_methods.read(built[0] / "compact-networks.csv")
    at = {x["network"]: x for x in lines if x["model"] == NAME and x["alpha"] == "0.001"}
    of = {row["run_id"] for row in done(rows, method="dst", alpha=1e-3).values()}
    layers = [x for x in synthetic_methods.layers(rows) if x["run_id"] in of]
    widths = [
        round(own * statistics.fmean(x["kept"] / x["weights"] for x in layers if x["parameter"] == f"{name}.weight"))
        for name, own in (("fc1", 300), ("fc2", 100))
    ]
    assert at["compact"]["widths"] == "-".join(map(str, widths)) == "7-5"
    trained = [row["test_accuracy"] for row in rows if json.loads(row["spec"])["model"].get("widths") == [7, 5]]
    assert float(at["compact"]["test_accuracy_mean"]) == pytest.approx(statistics.fmean(trained))
    assert at["compact"]["n"] == "3"
    dense = [row["test_accuracy"] for row in done(rows, method="dense").values()]
    assert float(at["dense"]["test_accuracy_mean"]) == pytest.approx(statistics.fmean(dense))


def test_the_suite_file_trains_what_is_suggested_and_its_cells_are_found_again(
    built: tuple[Path, dict[str, Written]], folder: Path
) -> None:
    from benchmark.suites import load as load_suite

    suite = load_suite(str(built[0] / "compact-networks.py"))
    wanted = {n.widths for n in networks(results(folder)) if n.kind in ("compact", "even")}
    assert {spec.model.widths for spec in suite.specs} == wanted
    assert len(suite.specs) == 3 * len(wanted)
    assert {spec.method["name"] for spec in suite.specs} == {"dense"}
    assert suite_file(networks(results(folder))) == (built[0] / "compact-networks.py").read_text()


def test_a_narrow_network_is_no_ones_dense_twin(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = results(synthetic.write(tmp_path, rows)).conditions
    sparse = next(s for s in found if s.model == NAME and s.method == "dst")
    narrow = [s for s in found if s.spec["model"].get("widths")]
    assert [s.model for s in narrow] == [f"{NAME} 7-2", f"{NAME} 7-5"]
    assert dense_twin(sparse, narrow) is None
    assert all(condition not in group.conditions for group in groups(found) for condition in narrow)


def test_the_interpolated_alpha_lies_on_the_line_between_two_measured_ones(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    lines = synthetic_methods.read(built[0] / "alpha-interpolation.csv")
    line = next(x for x in lines if x["model"] == NAME and x["epoch"] == "last")
    logs = {
        alpha: statistics.fmean(
            math.log(100 * row["density"]) for row in done(rows, method="dst", alpha=alpha).values()
        )
        for alpha in synthetic_methods.MNIST_ALPHAS[NAME]
    }
    goal = math.log(2.48)
    low, high = next((a, b) for a, b in zip(logs, list(logs)[1:], strict=False) if logs[a] >= goal >= logs[b])
    share = (logs[low] - goal) / (logs[low] - logs[high])
    assert float(line["alpha"]) == pytest.approx(math.exp(math.log(low) + share * math.log(high / low)))
    assert float(line["alpha_low"]) < float(line["alpha"]) < float(line["alpha_high"])


def test_the_sentence_on_alpha_is_of_the_last_epoch(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    """README and page name one number for one thing."""
    kept = statistics.fmean(100 * row["density"] for row in done(rows, method="dst", alpha=5e-4).values())
    lines = synthetic_methods.read(built[0] / "alpha-interpolation.csv")
    line = next(x for x in lines if x["model"] == NAME and x["epoch"] == "last")
    finding = built[1]["alpha-interpolation"].finding
    assert f"the stated alpha 0.0005 leaves {kept:.2f} % and the printed 2.48 % would take alpha" in finding
    assert f"{float(line['alpha']):.3g} ({float(line['alpha']) / 5e-4:.1f} times the stated)" in finding


def test_lstm_counts_and_training_cost_are_those_of_the_rows(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    counted = synthetic_methods.read(built[0] / "lstm-counting.csv")
    line = next(x for x in counted if x["method"] == "dst" and x["alpha"] == "0.001" and x["recipe"] == "LSTM-a")
    of = done(rows, model="lstm-a", method="dst", alpha=1e-3, protocol="paper")
    wanted = statistics.fmean(100 * row["density_as_authors_count"] for row in of.values())
    assert float(line["counted_percent_mean"]) == pytest.approx(wanted)
    assert line["printed_percent"] == "1.93"
    cost = next(
        x
        for x in synthetic_methods.read(built[0] / "training-cost.csv")
        if x["model"] == NAME and x["alpha"] == "0.001"
    )
    dense, sparse = done(rows, method="dense"), done(rows, method="dst", alpha=1e-3)
    ratios = [sparse[seed]["train_cpu_seconds"] / dense[seed]["train_cpu_seconds"] for seed in (0, 1, 2)]
    assert float(cost["ratio"]) == pytest.approx(statistics.geometric_mean(ratios))
    assert float(cost["steps"]) == 20 * 938
    assert float(cost["dense_ms_a_step"]) == pytest.approx(
        1000 * statistics.fmean(row["train_cpu_seconds"] for row in dense.values()) / (20 * 938)
    )


def test_an_lstm_that_keeps_nothing_breaks_no_table(tmp_path: Path) -> None:
    empty = [synthetic_methods.cell("lstm-a", "dst", seed, alpha=1e-2, kept=0.0) for seed in (0, 1)]
    rows = [row | {"density_as_authors_count": 0.0} for row in empty]
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("lstm-counting",))["lstm-counting"]
    assert found.table is not None
    assert found.table.rows[0].cells[5:7] == ("+0.00", "")


def test_methods_that_train_longer_are_compared_with_their_like_and_by_the_step(tmp_path: Path) -> None:
    """prune_finetune's phases take 40 epochs where the set-up has 20: no pair, and half the cost per second."""
    methods = (("dense", 20, 1.0), ("set", 20, 0.05), ("static", 20, 0.05), ("prune_finetune", 40, 0.05))
    rows = [
        synthetic_methods.cell(NAME, name, seed, kept=kept, **({} if name == "dense" else {"density": kept}))
        | {"epochs": epochs, "train_cpu_seconds": float(epochs)}
        for seed in (0, 1)
        for name, epochs, kept in methods
    ]
    folder = synthetic.write(tmp_path / "in", rows)
    found = written(folder, tmp_path / "out", only=("paired-methods", "training-cost"))
    pairs = synthetic_methods.read(tmp_path / "out/paired-methods.csv")
    assert [(line["first_method"], line["second_method"]) for line in pairs] == [("set", "static")]
    assert found["paired-methods"].table is not None
    assert any("trains for 40 epochs in all, not 20" in note for note in found["paired-methods"].table.notes)
    costs = {line["method"]: line for line in synthetic_methods.read(tmp_path / "out/training-cost.csv")}
    assert float(costs["prune_finetune"]["ratio"]) == pytest.approx(1.0)
    assert costs["prune_finetune"]["sparse_ms_a_step"] == costs["set"]["sparse_ms_a_step"]


@pytest.mark.parametrize(("executed", "steps"), [(1.4986, 1.4986), (2.0, 1.55), ("", 1.55)])
def test_a_last_epoch_that_ends_early_is_no_whole_one(tmp_path: Path, executed: float | str, steps: float) -> None:
    """31 epochs begun where the dense network has 20; a method that scores examples executes more than its steps."""
    rows = [
        synthetic_methods.cell(NAME, name, seed, kept=kept, **({} if name == "dense" else {"density": kept}))
        | {"epochs": epochs, "train_cpu_seconds": float(epochs), "executed_flops": flops}
        for seed in (0, 1)
        for name, epochs, kept, flops in (("dense", 20, 1.0, 1.0), ("taylor", 31, 0.05, executed))
    ]
    written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("training-cost",))
    (line,) = synthetic_methods.read(tmp_path / "out/training-cost.csv")
    assert float(line["ratio"]) == pytest.approx(31 / 20 / steps)


@pytest.mark.parametrize("lacks", [0, 1])
def test_training_cost_is_in_cpu_seconds_and_never_in_wall_clock_ones(tmp_path: Path, lacks: int) -> None:
    """The machine did other work during the second cell; and one pair was trained before CPU seconds were recorded."""
    rows = [
        synthetic_methods.cell(NAME, method, seed, **given)
        for seed in (0, 1)
        for method, given in (("dense", {}), ("set", {"density": 0.05, "kept": 0.05}))
    ]
    for row, wall, cpu in zip(rows, (20.0, 80.0, 20.0, 80.0), (20.0, 30.0, 20.0, 30.0), strict=True):
        row |= {"train_seconds": wall, "train_cpu_seconds": cpu}
    rows[2 + lacks]["train_cpu_seconds"] = ""
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("training-cost",))["training-cost"]
    (line,) = synthetic_methods.read(tmp_path / "out/training-cost.csv")
    assert (float(line["ratio"]), line["n"]) == (pytest.approx(1.5), "1")
    notes = found.table.notes if found.table else ()
    why = ("without a dense cell of their", "without CPU seconds")[lacks]
    assert any(note.startswith("Left out: 1 sparse cells") and why in note for note in notes), notes


def test_steps_are_compared_on_one_machine_and_commit_alone(tmp_path: Path) -> None:
    rows = [synthetic_methods.cell(NAME, "dense", 0), synthetic_methods.cell(NAME, "set", 0, density=0.05, kept=0.05)]
    rows[1]["device"] = "another"
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("training-cost",))
    assert found["training-cost"].remark.startswith(
        "no dense and sparse cells of one seed, machine and commit with CPU"
    )


@pytest.mark.parametrize("nameless", [{"device": ""}, {"commit": ""}, {"commit": "unknown-dirty"}])
def test_cells_without_the_name_of_their_machine_or_commit_are_counted_and_not_compared(
    tmp_path: Path, nameless: dict[str, str]
) -> None:
    rows = [
        synthetic_methods.cell(NAME, method, seed, **given) | (nameless if seed else {})
        for seed in (0, 1, 2)
        for method, given in (("dense", {}), ("set", {"density": 0.05, "kept": 0.05}))
    ]
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("training-cost",))["training-cost"]
    (line,) = synthetic_methods.read(tmp_path / "out/training-cost.csv")
    assert line["n"] == "1"
    assert found.table
    assert "Left out: 2 sparse cells without the name of their machine or commit." in found.table.notes


def test_the_patterns_agreement_is_that_of_the_layer_table(
    built: tuple[Path, dict[str, Written]], rows: list[dict[str, Any]]
) -> None:
    """Three layers of one order in every alpha agree fully; W is recomputed from ranks over the seeds of one alpha."""
    lines = synthetic_methods.read(built[0] / "pattern-consistency.csv")
    line = next(x for x in lines if x["recipe"] == "LSTM-a" and x["over"] == "seeds" and x["at"].endswith("0.001"))
    of = [row["run_id"] for row in done(rows, model="lstm-a", method="dst", alpha=1e-3, protocol="paper").values()]
    table = [[x["kept"] / x["weights"] for x in synthetic_methods.layers(rows) if x["run_id"] == run] for run in of]
    ranked = [[sorted(ratios).index(value) + 1 for value in ratios] for ratios in table]
    sums = [sum(column) for column in zip(*ranked, strict=True)]
    s = sum((value - statistics.fmean(sums)) ** 2 for value in sums)
    assert float(line["kendalls_w"]) == pytest.approx(12 * s / (3**2 * (4**3 - 4)))


@pytest.mark.slow
@pytest.mark.rare
def test_the_whole_grid_fills_every_exhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.plotting.FORMATS", {"png": {}})
    found = written(synthetic_methods.write(tmp_path / "in", synthetic_methods.full(seeds=(0, 1))), tmp_path / "out")
    assert {f"{d}-{kind}" for d in ("mnist", "cifar10") for kind in ("accuracy-density", "accuracy-flops")} < set(found)
    assert all(exhibit.files for exhibit in found.values())


@pytest.mark.filterwarnings("error")
def test_one_alpha_alone_has_a_range_around_it(tmp_path: Path) -> None:
    """5e-6 goes to 4.9999999999999996e-06 and back on its way to the figure: two ends in one place."""
    rows = [
        synthetic_methods.cell("vgg16", "dst", 0, alpha=5e-6, dataset="cifar10", lr=lr, epochs=160, kept=0.1)
        for lr in (0.1, 0.01)
    ]
    found = written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("alpha-interpolation",))
    assert found["alpha-interpolation"].files


def test_the_pareto_front_has_what_nothing_beats() -> None:
    """B costs as A and gains less; D costs more than C and gains as much."""
    assert pareto([(1, 90), (1, 80), (2, 95), (3, 95)]) == [True, False, True, False]
    assert pareto([(1, 90), (1, 90)]) == [True, True]


def test_a_compact_network_keeps_of_each_layer_the_share_of_its_weights() -> None:
    assert suggested(HIDDEN, [0.0592, 0.243, 1.0]) == (18, 24)
    assert suggested(HIDDEN, [0.0001, 0.001, 0.5]) == (1, 1)
    with pytest.raises(ValueError, match="2 ratios for 2 hidden layers"):
        suggested(HIDDEN, [0.1, 0.2])


def test_weights_of_a_narrow_network_are_counted_layer_by_layer() -> None:
    assert weights_of(HIDDEN, (18, 24), WEIGHTS) == 784 * 18 + 18 * 24 + 24 * 10
    assert weights_of(HIDDEN, HIDDEN, WEIGHTS) == 266_200


def test_an_even_network_has_about_as_many_weights_and_one_factor() -> None:
    widths = even(HIDDEN, WEIGHTS, 14_784)
    assert weights_of(HIDDEN, widths, WEIGHTS) == pytest.approx(14_784, rel=0.03)
    assert widths[0] == pytest.approx(3 * widths[1], abs=2)


def test_every_point_lies_inside_its_panel_and_the_papers_stand_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deviation above the mean ends below 0, which a logarithmic axis does not have."""
    kept = (0.02, 0.03, 0.74)
    rows = [synthetic_methods.cell(NAME, "dst", seed, kept=k, alpha=5e-4) for seed, k in enumerate(kept)]
    drawn = []
    real = accuracy_density_and_flops.write_figure
    monkeypatch.setattr(
        accuracy_density_and_flops, "write_figure", lambda name, data, figure, *a, **k: (
            drawn.append((data, figure)), real(name, data, figure, *a, **k))[1]
    )  # fmt: skip
    written(synthetic.write(tmp_path / "in", rows), tmp_path / "out", only=("mnist-accuracy-density",))
    (data, figure), = drawn  # fmt: skip
    low, high = figure.axes[0].get_xlim()
    floor, ceiling = figure.axes[0].get_ylim()
    assert list(data["method"]) == ["dst", "dst, as printed"]
    assert all(low < x < high for x in data["cost_percent_mean"])
    assert all(floor < y < ceiling for y in data["test_accuracy_mean"])
    printed_row = data.iloc[1]
    assert (printed_row["cost_percent_mean"], printed_row["test_accuracy_mean"]) == (2.48, 97.69)
