"""docs/performance.md and docs/inference.md state what the committed files hold, and the machine that measured it."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.speed import batches as data_path
from benchmark.speed import grids as grid_speed
from benchmark.speed import start_up
from benchmark.speed.inference import cell_row, form_row, latency_row
from benchmark.speed.sparse import FIELDS, layer_row, network_row
from benchmark.speed.steps import row
from benchmark.speed.workloads import load, spec_of
from benchmark.training.loop import Training
from methods import execution

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/performance.md").read_text()
WORDS = " ".join(PAGE.split())
INFERENCE = (ROOT / "docs/inference.md").read_text()
SPARSE = (ROOT / "docs/sparse-execution.md").read_text()
NOT_RUN = (ROOT / "docs/not-run.md").read_text()
BLOCKS = (ROOT / "docs/decisions/0021-linear-layers-in-blocks.md").read_text()
SPEED = ROOT / "paper_figures/results/speed"
BLOCK_BYTES, LEAST_ROWS, FLOAT_BYTES = 512 * 1024, 64, 4  # rows of a linear layer in one block: decision 21


def kind(document: dict[str, Any]) -> str:
    """What a file holds; the first ones do not say."""
    if "kind" in document or "pairs" not in document:
        return str(document.get("kind", "changes"))
    if "forms" in document:
        return "inference"
    if document["machine"]["kernel_path"] == "eager":
        return "pairs without kernels"
    return "pairs on two threads" if document["machine"]["threads"] == 2 else "pairs"


def measured(wanted: str, rows: str) -> list[dict[str, Any]]:
    """The rows of every file of one kind."""
    return [row for document in DOCUMENTS if kind(document) == wanted for row in document[rows]]


DOCUMENTS: list[dict[str, Any]] = [json.loads(file.read_text()) for file in sorted(SPEED.glob("*.json"))]
TRAINED = [document for document in DOCUMENTS if kind(document) == "inference"]
PAIRS, GRIDS, COMMANDS = measured("pairs", "pairs"), measured("grid", "grids"), measured("start-up", "commands")
PATHS, SIZES, REPEATS = measured("data-path", "paths"), measured("linear sizes", "sizes"), measured("repeats", "runs")
NETWORKS, LAYERS = measured("sparse", "networks"), measured("sparse", "layers")
WITHOUT_KERNELS, TWO_THREADS = measured("pairs without kernels", "pairs"), measured("pairs on two threads", "pairs")


def compared(file: Path, one: str, other: str) -> list[list[str]]:
    """Method, alpha, n, accuracy and density in both precisions, and the differences over equal seeds."""
    first, second = (_cells(file, precision) for precision in (one, other))
    rows = []
    for condition in dict.fromkeys(key[:2] for key in first):
        pairs = [(first[key], second[key]) for key in first if key[:2] == condition]
        row = [condition[0], f"{float(condition[1]):g}" if condition[1] else "-", str(len(pairs))]
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


def table(title: str, page: str = PAGE) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    section = page.split(f"# {title}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_committed_pair_is_on_the_page_and_nothing_else() -> None:
    step_cost = [line[:-1] for line in table("Step cost")]
    for rows, pairs in (
        (step_cost, PAIRS),
        (table("Two threads"), TWO_THREADS),
        (table("Without the compiled kernels"), WITHOUT_KERNELS),
    ):
        assert pairs
        assert sorted(rows) == sorted(map(row, pairs))


def test_every_measured_median_reaches_its_target() -> None:
    targets = {(line[0], line[1]): line[-1] for line in table("Step cost")}
    for pair in PAIRS:
        target, median = targets[pair["model"], pair["method"]], pair["ratio"]["median"]
        assert (target == "-") == (pair["method"] == "dense")
        assert target == "-" or median <= float(target), (pair["model"], pair["method"])
    (close,) = (p["ratio"]["median"] for p in PAIRS if (p["model"], p["method"]) == ("lenet-300-100", "dst"))
    assert f"the median of this run is {close:.3f}" in WORDS
    (plain,) = (p["ratio"]["median"] for p in WITHOUT_KERNELS if (p["model"], p["method"]) == ("lenet-300-100", "dst"))
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"LeNet-300-100 costs {close:.2f} dense steps, {plain:.1f} without g++" in readme


def test_what_kept_weights_only_cost_is_on_their_page_and_in_the_table_of_auto() -> None:
    assert table("Networks", SPARSE) == [network_row(row) for row in NETWORKS]
    shown = [row for row in LAYERS if (row["rows"], row["columns"]) == (300, 784)]
    assert table("Single layers", SPARSE) == [layer_row(row) for row in shown]
    assert len({(row["rows"], row["columns"]) for row in LAYERS}) == 7, "seven shapes"
    with execution.TABLE.open(newline="") as file:
        committed = list(csv.DictReader(file))
    assert committed == [
        {name: f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in FIELDS}
        for row in LAYERS
    ]
    large = [row for row in LAYERS if row["rows"] >= 100]
    slow = [row for row in large if row["density"] <= 0.2 and row["sparse"] > execution.PAYS * row["masked"]]
    assert {(row["rows"], row["columns"], row["density"]) for row in slow} == {(100, 300, 0.01)}, "stays dense"
    assert max(row["density"] for row in large if row["csr"] <= 1) == 0.1
    at = {(row["network"], row["density"]): row for row in NETWORKS}
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"at 5 % costs {at['784-300-100-10', 0.05]['sparse']['median']:.2f} with [sparse execution]" in readme


def test_kept_weights_only_end_where_masked_training_does() -> None:
    masked = {
        row["run_id"]: row
        for row in csv.DictReader((ROOT / "paper_figures/results/mnist-field/results.csv").open(newline=""))
    }
    with (SPEED / "executions.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 6
    rows = []
    for one in sorted(found, key=lambda row: (row["method"], row["seed"])):
        other = masked[one["run_id"]]
        assert one["density"] == other["density"]
        accuracies = [float(row["test_accuracy"]) for row in (other, one)]
        seconds = [f"{float(row['train_cpu_seconds']):.0f}" for row in (other, one)]
        rows.append([one["method"], one["seed"], *(f"{value:.2f}" for value in accuracies), *seconds])
    assert table("The end of a training", SPARSE) == rows


def test_every_committed_cell_form_and_latency_is_on_the_page_and_nothing_else() -> None:
    assert TRAINED
    short = {document["cell"]["run_id"][:4]: document for document in TRAINED}
    assert len(short) == len(TRAINED)
    assert sorted(table("Cells", INFERENCE)) == sorted(cell_row(document) for document in TRAINED)
    latencies = [[cell, *latency_row(pair)] for cell, document in short.items() for pair in document["pairs"]]
    assert sorted(table("Latency", INFERENCE)) == sorted(latencies)
    files = [[cell, *form_row(form)] for cell, document in short.items() for form in document["forms"]]
    assert sorted(table("Files and outputs", INFERENCE)) == sorted(files)


def test_what_sparsity_buys_is_what_was_measured() -> None:
    for document in TRAINED:
        ratios = {(pair["form"], pair["batch_size"]): pair["ratio"] for pair in document["pairs"]}
        files = {form["form"]: form for form in document["forms"]}
        for batch in (1, 64):
            zeros, compact, csr = (ratios[form, batch] for form in ("masked-dense", "compact", "csr"))
            assert abs(zeros["median"] - 1) <= 0.03, "zeros without a sparse kernel save no time"
            assert compact["median"] < min(csr["median"], 1)
            if document["cell"]["model"] == "lenet-300-100":
                fastest = min(ratios, key=lambda key: ratios[key]["median"] if key[1] == batch else 9)[0]
                assert fastest == ("sparse" if batch == 64 else "compact")
            overlaps = compact["upper"] >= csr["lower"]
            assert overlaps == (document["cell"]["run_id"][:4] == "3f54" and batch == 64)
        assert (ratios["csr", 1]["lower"] > 1) == (document["cell"]["model"] == "lenet-300-100")
        assert min(files.values(), key=lambda form: int(form["bytes"]))["form"] == "csr"
        assert files["masked-dense"]["bytes"] == files["dense"]["bytes"]
        assert {form["equal_predictions"] for form in files.values()} == {None, 1}


def test_blocks_of_linear_layers_are_used_for_the_batches_that_they_serve() -> None:
    assert SIZES
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for size in SIZES:
        most = max(LEAST_ROWS, BLOCK_BYTES // (FLOAT_BYTES * size["columns"]))
        ratios[size["rows"] <= most or size["examples"] <= most].append(size["ratio"]["median"])
    stated = " ".join(BLOCKS.split())
    assert f"{min(ratios[True]):.2f} to {max(ratios[True]):.2f} times the whole weight's time" in stated
    assert f"{min(ratios[False]):.2f} to {max(ratios[False]):.2f} times beyond it" in stated


def test_runs_that_were_repeated_ended_as_stated() -> None:
    runs, dense = _medians(REPEATS, "dst"), _medians(REPEATS, "dense")
    busier = _medians(measured("repeats in another hour", "runs"), "dst")
    assert [len(runs), len(dense), len(busier)] == [5, 5, 5]
    assert f"Five more runs at the same commit gave {min(runs):.3f} to {max(runs):.3f}" in WORDS
    assert f"dense over dense at {min(dense):.3f} to {max(dense):.3f}" in WORDS
    assert f"in a busier hour, gave {min(busier):.3f} to {max(busier):.3f}" in WORDS


def _medians(runs: list[Any], method: str) -> list[float]:
    return [pair["ratio"]["median"] for run in runs for pair in run if pair["method"] == method]


def test_precision_changes_accuracy_as_stated() -> None:
    rows = compared(SPEED / "precision.csv", "float32", "bfloat16")
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
    assert f"{min(extra):.0f} to {max(extra):.0f} ns per weight on all five models" in WORDS
    assert len(extra) == 5


def test_every_committed_grid_is_on_the_page_and_nothing_else() -> None:
    assert GRIDS
    assert {(grid["cells"], grid["epochs"]) for grid in GRIDS} == {(4, 2)}, "as the page says of all of them"
    rows = [grid_speed.row(grid) for grid in GRIDS]  # model, method, cells, epochs, then what was measured
    assert sorted(line[:7] for line in table("Grids")) == sorted([*line[:2], *line[4:9]] for line in rows)


def test_every_grid_reaches_its_target_beside_the_authors_code() -> None:
    compared = {(grid["model"], grid["method"]): grid for grid in GRIDS if grid["authors_ratio"] is not None}
    stated = {(line[0], line[1]): line[7:] for line in table("Grids") if line[7] != "-"}
    assert stated.keys() == compared.keys()
    for key, (authors, ratio, whole, target) in stated.items():
        grid = compared[key]
        assert authors == f"{grid['authors_epoch_seconds']:.1f}"
        assert (ratio, whole) == (f"{grid['authors_ratio']:.2f}", f"{grid['whole_authors_ratio']:.2f}")
        assert grid["authors_ratio"] >= float(target), key


def test_what_a_cell_that_was_not_run_would_take_follows_from_the_tables() -> None:
    stated = {line[0].split(":")[0].split(" on ")[0]: line[3] for line in table("Cells", NOT_RUN)}
    steps = 782 * 160  # an epoch of CIFAR-10 has 782 steps
    vgg, wrn = (
        next(p["method_seconds"] for p in PAIRS if (p["model"], p["method"]) == (model, "dst"))
        for model in ("vgg16", "wrn-16-8")
    )
    assert stated["VGG-16"] == f"{steps * vgg / 3600:.0f} hours"
    assert stated["WRN-16-8"] == f"{steps * wrn / 86400:.1f} days"


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
    assert f"{min(shares['lenet-300-100']):.0f} to {max(shares['lenet-300-100']):.0f} % of LeNet-300-100's" in WORDS
    assert max(shares["vgg16"]) < 0.1
    assert all(path["target"] is path["reached"] is None for path in PATHS), "none is set for a CPU"
    assert f"{data_path.TARGET_IMAGES_A_SECOND:,} images a second of CIFAR-10" in WORDS


@pytest.mark.parametrize("file", sorted(SPEED.glob("*.json")), ids=lambda file: file.stem)
def test_the_machine_named_is_the_one_that_measured(file: Path) -> None:
    """A file is named on the page of its table, or in the decision that rests on it, with its commit."""
    document = json.loads(file.read_text())
    machine: dict[str, Any] = document["machine"]
    assert machine.get("dirty", False) is False
    pages = [PAGE, INFERENCE, SPARSE, *(page.read_text() for page in sorted((ROOT / "docs/decisions").glob("*.md")))]
    naming = [page for page in pages if file.name in page]
    assert naming
    assert all(f"commit `{machine['commit'][:7]}`" in " ".join(page.split()) for page in naming)
    if (page := naming[0]) in (PAGE, INFERENCE, SPARSE):
        for named in (
            f"{machine['device_name']}, {machine['cpus']} CPUs",
            f"threads: {machine['threads']}" if kind(document) != "start-up" else "",
            f"torch {machine['torch']}",
            f"Python {machine['python']}",
            f"kernel path: {machine['kernel_path']}",
        ):
            assert named in " ".join(page.split())


@pytest.mark.parametrize("page", ["performance.md", "inference.md"])
def test_a_page_of_measurements_stays_short(page: str) -> None:
    assert len((ROOT / "docs" / page).read_text().splitlines()) <= 200
