"""docs/performance.md says what the committed measurements say, of the machine that they name."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import data_path, grid_speed, start_up
from benchmark.excerpt import load, spec_of
from benchmark.inference import cell_row, form_row, latency_row
from benchmark.speed import row
from benchmark.train import Training

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/performance.md").read_text()
SPEED = ROOT / "paper_figures/results/speed"
FILES = sorted(file for file in SPEED.glob("*.json") if file.name != "engine-cpu.json")


def kind(document: dict[str, Any]) -> str:
    """What a file holds; the first ones do not say."""
    pairs = "pairs on two threads" if document["machine"].get("threads") == 2 else "pairs"
    if document["machine"]["kernel_path"] == "eager":
        pairs = "pairs without kernels"
    return str(document.get("kind", "inference" if "forms" in document else pairs))


def measured(wanted: str, rows: str) -> list[dict[str, Any]]:
    """The rows of every file of one kind."""
    return [row for document in DOCUMENTS if kind(document) == wanted for row in document[rows]]


DOCUMENTS: list[dict[str, Any]] = [json.loads(file.read_text()) for file in FILES]
TRAINED = [document for document in DOCUMENTS if kind(document) == "inference"]
PAIRS, GRIDS, COMMANDS = measured("pairs", "pairs"), measured("grid", "grids"), measured("start-up", "commands")
PATHS, CHANGES = measured("data-path", "paths"), measured("data-path changes", "changes")
SIZES, REPEATS = measured("linear sizes", "sizes"), measured("repeats", "runs")
WITHOUT_KERNELS, TWO_THREADS = measured("pairs without kernels", "pairs"), measured("pairs on two threads", "pairs")
IN_TURNS = measured("changes in turns", "changes")


def compared(before: Path, wanted: str, after: Path, other: str) -> list[list[str]]:
    """Method, alpha, n, then accuracy and density of both, and of the pairs of equal seeds the difference."""
    first, second = (_cells(file, precision) for file, precision in ((before, wanted), (after, other)))
    rows = []
    for setting in dict.fromkeys(key[:2] for key in first):
        pairs = [(first[key], second[key]) for key in first if key[:2] == setting]
        row = [setting[0], f"{float(setting[1]):g}" if setting[1] else "-", str(len(pairs))]
        for number, digits in ((0, 2), (1, 2)):
            columns = [[pair[0][number], pair[1][number], pair[1][number] - pair[0][number]] for pair in pairs]
            row += [_mean_and_deviation(values, digits) for values in zip(*columns, strict=True)]
        rows.append(row)
    return rows


def _cells(file: Path, precision: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(method, alpha, seed) to accuracy and density, both in percent."""
    with file.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if json.loads(row["spec"])["precision"] == precision]
    assert {row["status"] for row in rows} == {"done"}
    found = {
        (row["method"], row["alpha"], row["seed"]): (float(row["test_accuracy"]), 100 * float(row["density"]))
        for row in rows
    }
    return dict(sorted(found.items()))


def _mean_and_deviation(values: Sequence[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table(title: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_committed_pair_is_on_the_page_and_nothing_else() -> None:
    for title, pairs in (
        ("Step cost", PAIRS),
        ("Two threads", TWO_THREADS),
        ("Without the kernels", WITHOUT_KERNELS),
    ):
        assert pairs
        assert sorted(table(title)) == sorted(map(row, pairs))


def test_a_target_is_reached_where_the_measured_median_is() -> None:
    medians = {(pair["model"], pair["method"]): pair["ratio"]["median"] for pair in PAIRS if pair["method"] != "dense"}
    stated = {(model, method): rest for model, method, *rest in table("Where the targets stand")}
    assert stated.keys() == medians.keys()
    for key, (target, median, verdict) in stated.items():
        assert median == f"{medians[key]:.3f}"
        assert verdict == ("reached" if medians[key] <= float(target) else "missed"), key


def test_every_committed_cell_form_and_latency_is_on_the_page_and_nothing_else() -> None:
    assert TRAINED
    short = {document["cell"]["run_id"][:4]: document for document in TRAINED}
    assert len(short) == len(TRAINED)
    assert sorted(table("After training")) == sorted(cell_row(document) for document in TRAINED)
    latencies = [[cell, *latency_row(pair)] for cell, document in short.items() for pair in document["pairs"]]
    assert sorted(table("After training: latency")) == sorted(latencies)
    files = [[cell, *form_row(form)] for cell, document in short.items() for form in document["forms"]]
    assert sorted(table("After training: files and outputs")) == sorted(files)


def test_what_sparsity_buys_is_what_was_measured() -> None:
    for document in TRAINED:
        ratios = {(pair["form"], pair["batch_size"]): pair["ratio"] for pair in document["pairs"]}
        files = {form["form"]: form for form in document["forms"]}
        for batch in (1, 64):
            zeros, compact, csr = (ratios[form, batch] for form in ("masked-dense", "compact", "csr"))
            assert round(zeros["lower"], 2) <= 1 <= round(zeros["upper"], 2), "zeros alone buy nothing"
            assert compact["median"] < min(csr["median"], 1)
            overlaps = compact["upper"] >= csr["lower"]
            assert overlaps == (document["cell"]["run_id"][:4] == "3f54" and batch == 64)
        assert (ratios["csr", 1]["lower"] > 1) == (document["cell"]["model"] == "lenet-300-100")
        assert min(files.values(), key=lambda form: int(form["bytes"]))["form"] == "csr"
        assert files["masked-dense"]["bytes"] == files["dense"]["bytes"]
        assert {form["equal_predictions"] for form in files.values()} == {None, 1}


@pytest.mark.parametrize(
    ("title", "file"),
    [
        ("The engine: what was tried", "engine-cpu.json"),
        ("Linear layers: what was tried", "linear-cpu.json"),
    ],
)
def test_what_was_tried_on_a_step_is_what_was_measured(title: str, file: str) -> None:
    changes = json.loads((SPEED / file).read_text())["changes"]
    rows = table(title)
    assert len(rows) == len(changes)
    for (change, model, method, _, gain, _, n, *_, verdict), measured in zip(rows, changes, strict=True):
        assert [change, model, method, verdict] == [measured[key] for key in ("change", "model", "method", "verdict")]
        assert (gain, n) == (f"{100 * (1 - measured['ratio']['median']):.1f} %", str(measured["n"]))


def test_what_was_tried_in_turns_is_what_was_measured() -> None:
    rows = table("Counting and threads: what was tried")
    assert IN_TURNS
    assert len(rows) == len(IN_TURNS)
    for (change, model, threads, predicted, n, before, after, gain), measured in zip(rows, IN_TURNS, strict=True):
        assert [change, model, threads] == [measured["change"], measured["model"], str(measured["threads"])]
        assert predicted == ("-" if measured["predicted"] is None else f"{100 * measured['predicted']:.0f} %")
        sides = measured["before"], measured["after"]
        pairs = [count for side in sides for count in side["n"]]
        assert n == "-".join(dict.fromkeys(map(str, (min(pairs), max(pairs)))))
        assert [before, after] == [" ".join(f"{median:.3f}" for median in side["medians"]) for side in sides]
        assert all(f"commit `{side['commit'][:7]}`" in PAGE for side in sides)
        one, other = (statistics.median(side["medians"]) for side in sides)
        assert gain == f"{100 * (1 - other / one):.1f} %"


def test_blocks_are_used_for_the_batches_that_they_serve() -> None:
    rows = table("Linear layers: which batches")
    assert SIZES
    assert len(rows) == len(SIZES)
    for (layer, batch, most, n, ratio, spread, whole, blocks, used), size in zip(rows, SIZES, strict=True):
        assert (layer, batch, n) == (f"{size['rows']} x {size['columns']}", str(size["examples"]), str(size["n"]))
        assert (ratio, spread) == (
            f"{size['ratio']['median']:.2f}",
            f"{size['ratio']['lower']:.2f}-{size['ratio']['upper']:.2f}",
        )
        assert (whole, blocks) == tuple(f"{1000 * size[f'{which}_seconds']:.2f}" for which in ("whole", "blocks"))
        assert used == ("yes" if size["rows"] <= int(most) or size["examples"] <= int(most) else "no")
    within, beyond = ([float(row[4]) for row in rows if row[-1] == used] for used in ("yes", "no"))
    stated = (ROOT / "docs/decisions/0014-three-kernel-paths.md").read_text()
    assert f"{min(within):.2f} to {max(within):.2f} times the whole weight's time" in stated
    assert f"{min(beyond):.2f} to {max(beyond):.2f} times beyond it" in stated


def test_runs_that_were_repeated_ended_as_stated() -> None:
    page = " ".join(PAGE.split())
    (counting,) = (change for change in IN_TURNS if change["threads"] == 1)
    again = _medians(REPEATS, "dst") + counting["after"]["medians"]
    dense, busier = _medians(REPEATS, "dense"), _medians(measured("repeats in another hour", "runs"), "dst")
    assert [len(again), len(dense), len(busier)] == [10, 5, 5]
    for before, medians in (
        ("at this commit ended", again),
        ("dense over dense", dense),
        ("in a busier hour,", busier),
    ):
        assert f"{before} at {min(medians):.3f} to {max(medians):.3f}" in page


def _medians(runs: list[Any], method: str) -> list[float]:
    return [pair["ratio"]["median"] for run in runs for pair in run if pair["method"] == method]


def test_precision_changes_accuracy_as_stated() -> None:
    cells = SPEED / "precision.csv"
    rows = compared(cells, "float32", cells, "bfloat16")
    assert table("Precision and accuracy") == rows
    for one in rows:
        difference = abs(float(one[5].split()[0]))
        assert difference < max(float(accuracy.split()[2]) for accuracy in one[3:5]), "less than seeds differ by"


def test_the_extra_time_a_weight_is_in_the_stated_range() -> None:
    extra = []
    for pair in (pair for pair in PAIRS if pair["method"] == "dst"):
        spec = spec_of(pair["model"], "dst")
        masks = Training(spec, load(pair["model"], spec, torch.device("cpu"))).attached.masks()
        weights = sum(mask.numel() for mask in masks.values())
        extra.append(1e9 * (pair["ratio"]["median"] - 1) * pair["dense_seconds"] / weights)
    assert f"{min(extra):.0f} to {max(extra):.0f} ns for each weight on all five models" in PAGE
    assert len(extra) == 5


def test_every_committed_grid_is_on_the_page_and_nothing_else() -> None:
    assert GRIDS
    assert sorted(table("Grids")) == sorted(grid_speed.row(grid) for grid in GRIDS)


def test_a_grid_reaches_its_target_where_its_cells_an_hour_do() -> None:
    compared = {grid["model"]: grid for grid in GRIDS if grid["authors_ratio"] is not None}
    stated = {model: rest for model, *rest in table("Grids beside the authors' code")}
    assert stated.keys() == compared.keys()
    for model, (authors, ours, target, ratio, whole, verdict) in stated.items():
        grid = compared[model]
        assert authors == f"{grid['authors_epoch_seconds']:.1f}"
        assert ours == f"{grid['epoch_seconds']:.1f}"
        assert (ratio, whole) == (f"{grid['authors_ratio']:.2f}", f"{grid['whole_authors_ratio']:.2f}")
        assert verdict == ("reached" if grid["authors_ratio"] >= float(target) else "missed"), model


def test_every_committed_command_is_on_the_page_and_its_verdict_follows() -> None:
    stated = {line[0].strip("`"): line[1:] for line in table("Start-up")}
    assert stated.keys() == {command["command"] for command in COMMANDS}
    for command in COMMANDS:
        name, *measurements = start_up.row(command)
        *shown, target, verdict = stated[name]
        assert shown == measurements
        assert verdict == ("reached" if command["seconds"]["median"] <= float(target) else "missed"), name


def test_every_committed_data_path_is_on_the_page_and_nothing_else() -> None:
    assert PATHS
    assert sorted(table("Data path")) == sorted(data_path.row(path) for path in PATHS)


def test_a_data_path_is_the_stated_share_of_a_training_on_a_cpu() -> None:
    shares = {
        model: [100 * path["share"]["median"] for path in PATHS if path["model"] == model]
        for model in data_path.DEFAULT_MODELS
    }
    assert f"{min(shares['lenet-300-100']):.0f} to {max(shares['lenet-300-100']):.0f} % of LeNet-300-100's" in PAGE
    assert max(shares["vgg16"]) < 0.1
    assert all(path["target"] is path["reached"] is None for path in PATHS), "none is set for a CPU"
    assert f"{data_path.TARGET_IMAGES_A_SECOND:,} images a second of CIFAR-10" in PAGE


def test_what_was_tried_on_the_data_path_is_what_was_measured() -> None:
    rows = table("Data path: what was tried")
    assert CHANGES
    assert len(rows) == len(CHANGES)
    for (change, data, batch, predicted, gain, spread, n, before, after, verdict), measured in zip(
        rows, CHANGES, strict=True
    ):
        assert [change, data, verdict] == [measured[key] for key in ("change", "data", "verdict")]
        assert predicted == ("-" if measured["predicted"] is None else f"{100 * measured['predicted']:.0f} %")
        low, median, high = (100 * (1 - measured["ratio"][key]) for key in ("upper", "median", "lower"))
        assert (gain, spread) == (f"{median:.1f} %", f"{low:.1f} to {high:.1f}")
        assert (batch, n) == (str(measured["batch_size"]), str(measured["n"]))
        assert (before, after) == tuple(f"{1000 * measured[f'{when}_seconds']:.0f}" for when in ("before", "after"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_machine_named_is_the_one_that_measured(file: Path) -> None:
    machine: dict[str, Any] = json.loads(file.read_text())["machine"]
    assert file.name in PAGE
    assert machine["dirty"] is False
    for named in (
        f"{machine['device_name']}, {machine['cpus']} CPUs",
        f"threads: {machine.get('threads', '')}" if kind(json.loads(file.read_text())) != "start-up" else "",
        f"torch {machine['torch']}",
        f"Python {machine['python']}",
        f"kernel path: {machine['kernel_path']}",
        f"commit `{machine['commit'][:7]}`",
    ):
        assert named in PAGE
