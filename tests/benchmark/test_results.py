"""The tables that a run folder is read by: columns, contents, filters."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grids import HOOK_BROKE, Bench, Grid

from benchmark import results
from benchmark.commands.labels import distinctions
from benchmark.results import Member
from benchmark.run_folder.files import read_json, write_json
from benchmark.run_folder.result import result_of
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.training import environment

DOCUMENTED = (
    "run_id suite dataset model method alpha density_target seed protocol status epochs test_accuracy "
    "test_top5_accuracy best_test_accuracy density_at_best_test_accuracy density nonzero_density min_density "
    "test_accuracy_at_min_density density_as_authors_count parameters_remaining threshold_resets mask_flips "
    "threshold_min threshold_max threshold_share_in_0_1 weight_max q_min q_max train_flops inference_flops "
    "executed_flops train_seconds train_cpu_seconds device departs error commit spec"
)
COLUMNS = DOCUMENTED.split(" ")
WEIGHTS = {"fc1.weight": 64 * 300, "fc2.weight": 300 * 100, "fc3.weight": 100 * 10}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def row_of(grid: Grid, method: str, status: str = "done") -> dict[str, str]:
    (row,) = [r for r in read(grid.out / "results.csv") if (r["method"], r["status"]) == (method, status)]
    return row


# --- results.csv --------------------------------------------------------------------------------


def test_results_csv_has_the_documented_columns_in_order(grid: Grid) -> None:
    with (grid.out / "results.csv").open(newline="") as file:
        assert next(csv.reader(file)) == COLUMNS


def test_every_cell_is_a_row_whatever_became_of_it(grid: Grid) -> None:
    rows = read(grid.out / "results.csv")
    assert [(row["method"], row["status"]) for row in rows] == [
        ("dense", "diverged"),
        ("broken", "failed"),
        ("dense", "done"),
        ("dst", "done"),
        ("static", "done"),
    ]
    assert len({row["run_id"] for row in rows}) == 5


def test_a_done_row_says_what_was_measured_and_where(grid: Grid) -> None:
    row = row_of(grid, "static")
    assert (row["suite"], row["dataset"], row["model"]) == ("mixed", "synthetic", "lenet-300-100")
    assert (row["alpha"], row["density_target"], row["seed"], row["protocol"]) == ("", "0.1", "0", "official")
    assert (row["epochs"], row["device"], row["departs"], row["error"]) == ("2", environment.cpu_name(), "", "")
    kept = round(0.1 * sum(WEIGHTS.values()))
    assert float(row["density"]) == kept / sum(WEIGHTS.values())
    assert row["parameters_remaining"] == str(kept + 300 + 100 + 10)
    assert 0 <= float(row["test_accuracy"]) <= float(row["best_test_accuracy"]) <= 100
    assert 0 < float(row["train_seconds"]) < 60
    assert 0 < float(row["train_cpu_seconds"]) < 60
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", row["commit"])
    assert json.loads(row["spec"])["method"] == {"name": "static", "version": 1, "allocation": "erk"}


def test_a_dense_row_has_density_one_and_no_target(grid: Grid) -> None:
    row = row_of(grid, "dense")
    assert (row["alpha"], row["density_target"], row["protocol"]) == ("", "", "paper;official")
    assert (row["density"], row["threshold_min"], row["mask_flips"]) == ("1.0", "", "0")


def test_an_emergent_row_has_alpha_and_thresholds(grid: Grid) -> None:
    row = row_of(grid, "dst")
    assert (row["alpha"], row["density_target"]) == ("0.001", "")
    low, high = float(row["threshold_min"]), float(row["threshold_max"])
    assert low <= high
    assert 0 <= float(row["threshold_share_in_0_1"]) <= 1
    assert -high - 1e-6 <= float(row["q_min"]) <= float(row["q_max"]) <= float(row["weight_max"]) - low + 1e-6
    assert 0 < float(row["density"]) < 1


def test_a_row_without_measurements_leaves_them_empty_and_says_why(grid: Grid) -> None:
    failed, diverged = row_of(grid, "broken", "failed"), row_of(grid, "dense", "diverged")
    assert failed["error"] == HOOK_BROKE
    layer = r"fc1\.weight has \d+ such values of 19200, the first (nan|-?inf)"
    assert re.fullmatch(f"the loss or a weight is not finite after epoch 1 of dense: {layer}", diverged["error"])
    assert diverged["epochs"] == "1"
    for row in (failed, diverged):
        assert all(row[name] == "" for name in results.MEASURED if name != "epochs")


def test_parquet_equals_csv(grid: Grid) -> None:
    from_csv = pd.read_csv(grid.out / "results.csv", keep_default_na=False)
    from_parquet = pd.read_parquet(grid.out / "results.parquet")
    assert list(from_parquet.columns) == COLUMNS
    for name in COLUMNS:
        if from_parquet[name].dtype == np.float64:
            expected = [np.nan if value == "" else float(value) for value in from_csv[name]]
            np.testing.assert_array_equal(from_parquet[name], expected)
        else:
            assert list(from_parquet[name]) == list(from_csv[name])
    numbers = {name for name in COLUMNS if from_parquet[name].dtype == np.float64}
    assert numbers == {"alpha", "density_target", "seed", *results.MEASURED}


# --- traces.csv, layers.csv -----------------------------------------------------------------------


def test_traces_hold_every_recorded_value(grid: Grid) -> None:
    rows = read(grid.out / "traces.csv")
    assert list(rows[0]) == ["run_id", "epoch", "step", "name", "value"]
    run_id = row_of(grid, "dst")["run_id"]
    traces = {(r["epoch"], r["step"], r["name"]): r["value"] for r in rows if r["run_id"] == run_id}
    records = [json.loads(line) for line in (grid.out / "cells" / run_id / "metrics.jsonl").read_text().splitlines()]
    assert len(traces) == sum(len(record) - 2 for record in records)  # all but epoch and step themselves
    for record in records:
        step = "" if "test_accuracy" in record else str(record["step"])
        for name in set(record) - {"epoch", "step"}:
            assert traces[str(record["epoch"]), step, name] == str(record[name])


def test_traces_hold_one_record_a_step_where_asked_and_one_an_epoch(grid: Grid) -> None:
    run_id = row_of(grid, "dst")["run_id"]
    density = [
        (row["epoch"], row["step"])
        for row in read(grid.out / "traces.csv")
        if (row["run_id"], row["name"]) == (run_id, "density")
    ]
    assert density == [("1", "1"), ("1", "2"), ("1", "3"), ("1", "4"), ("1", ""), ("2", "")]
    names = {row["name"] for row in read(grid.out / "traces.csv") if row["run_id"] == run_id}
    assert {"masked/fc1.weight", "recovered/fc3.weight", "density/fc2.weight", "train_loss", "lr"} <= names


def test_layers_sum_to_the_density_of_the_row(grid: Grid) -> None:
    rows = read(grid.out / "layers.csv")
    assert list(rows[0]) == ["run_id", "parameter", "weights", "kept"]
    for method in ("dense", "dst", "static"):
        row = row_of(grid, method)
        layers = {r["parameter"]: r for r in rows if r["run_id"] == row["run_id"]}
        assert {name: int(r["weights"]) for name, r in layers.items()} == WEIGHTS
        kept = sum(int(r["kept"]) for r in layers.values())
        assert kept / sum(WEIGHTS.values()) == pytest.approx(float(row["density"]), rel=1e-12)


# --- the run folder ---------------------------------------------------------------------------------


def test_a_cell_folder_holds_what_is_documented(grid: Grid) -> None:
    cell = grid.out / "cells" / row_of(grid, "dst")["run_id"]
    names = {path.name for path in cell.iterdir()}
    assert names == {"spec.json", "environment.json", "attempts", "metrics.jsonl", "result.json"}
    assert result_of(cell) is not None
    environment = read_json(cell / "environment.json")
    assert environment["threads"] == 1
    assert {"commit", "dirty", "torch", "device", "python", "data"} <= set(environment)
    assert read_json(cell / "spec.json") == json.loads(row_of(grid, "dst")["spec"])


def test_a_cell_is_done_only_while_its_checksum_holds(grid: Grid, tmp_path: Path) -> None:
    copy = grid.copy(tmp_path / "runs")
    run_id = row_of(copy, "dst")["run_id"]
    result = copy.out / "cells" / run_id / "result.json"
    result.write_text(result.read_text().replace('"test_accuracy": ', '"test_accuracy": 1'))
    (row,) = [row for row in results.rows(copy.out) if row["run_id"] == run_id]
    assert (row["status"], row["test_accuracy"]) == ("pending", "")
    assert row["error"] == "result.json is damaged: the cell will be run again"


def test_a_suite_expansion_grows_and_is_no_part_of_other_suites(grid: Grid, tmp_path: Path) -> None:
    copy = grid.copy(tmp_path / "runs")
    members = results.members(copy.out)
    spec = next(member.spec for member in members.values())
    results.remember(copy.out, "other", ["figure4"], [spec])
    assert results.members(copy.out)[spec.run_id] == Member(spec, ("mixed", "other"))
    assert len(results.members(copy.out)) == len(members)
    results.remember(copy.out, "mixed", ["table1"], [spec])
    assert len(results.members(copy.out)) == len(members)
    assert read_json(copy.out / "suites" / "mixed.json")["exhibits"] == ["table1"]


def test_lists_that_are_written_at_once_lose_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.prepare(tmp_path)
    first, second = (dataclasses.replace(specification(), seed=seed) for seed in (0, 1))
    other = threading.Thread(target=results.remember, args=(tmp_path, "mine", (), [second]))
    write = results.write_json

    def while_another_writes(*arguments: Any) -> None:
        if not other.ident:
            other.start()
            other.join(timeout=1)
        write(*arguments)

    monkeypatch.setattr(results, "write_json", while_another_writes)
    results.remember(tmp_path, "mine", (), [first])
    other.join(timeout=60)
    assert set(results.members(tmp_path)) == {first.run_id, second.run_id}


def test_the_exit_code_counts_cells_that_another_process_took_off_the_list(
    bench: Bench, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system cannot lock a folder."""
    copy = grid.copy(tmp_path / "runs")
    (copy.out / "suites" / "mixed.json").unlink()
    monkeypatch.setattr(results, "remember", lambda *_: None)
    finished = bench("run", "--suite", grid.suite, "--out", copy.out, "--json")
    assert finished.code == 1
    assert [row["status"] for row in finished.json["cells"]] == ["diverged", "failed", "done", "done", "done"]


def specification() -> RunSpec:
    return cell("dst", data=Data(name="digits"), model=Model(name="lenet-300-100"), optimizer=Optimizer(), protocol=())


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_a_cell_of_two_suites_has_the_memberships_of_both(tmp_path: Path, names: tuple[str, str]) -> None:
    """In whatever order their names stand: `match` lists its cells without a protocol."""
    spec = specification()
    paper, official = (dataclasses.replace(spec, protocol=(name,)) for name in ("paper", "official"))
    changed = dataclasses.replace(official, departs=("optimizer.epochs=1 (suite: 2)",))
    for case, (one, other, protocol, departs) in enumerate(
        [
            (spec, paper, {"paper"}, ()),
            (official, paper, {"paper", "official"}, ()),
            (changed, paper, {"paper"}, ()),
            (changed, dataclasses.replace(changed, protocol=("paper",)), {"paper", "official"}, changed.departs),
        ]
    ):
        out = tmp_path / str(case)
        results.prepare(out)
        for name, given in zip(names, (one, other), strict=True):
            results.remember(out, name, (), [given])
        (member,) = results.members(out).values()
        assert (set(member.spec.protocol), member.spec.departs) == (protocol, departs)
        assert set(member.suites) == set(names)


def test_a_protocol_that_a_suite_corrects_replaces_the_earlier_one(tmp_path: Path) -> None:
    results.prepare(tmp_path)
    spec = specification()
    official, paper = (dataclasses.replace(spec, protocol=(name,)) for name in ("official", "paper"))
    for given in (official, paper, dataclasses.replace(official, departs=("drift: suite: x",))):
        results.remember(tmp_path, "mine", (), [given])
    (member,) = results.members(tmp_path).values()
    assert (member.spec.protocol, member.spec.departs) == (("paper",), ())


REMEMBER = """
import fcntl, json, sys
from pathlib import Path
from benchmark import results
from benchmark.spec import from_dict

def no_locks(*_):
    raise OSError("no locks available")

fcntl.flock = no_locks
for spec in json.load(sys.stdin):
    results.remember(Path(sys.argv[1]), "mine", (), [from_dict(spec)])
"""


def test_no_command_takes_cells_of_another_one_off_the_list_where_nothing_can_be_locked(tmp_path: Path) -> None:
    results.prepare(tmp_path)
    spec = specification()
    started = []
    for number in range(3):
        cells = [dataclasses.replace(spec, seed=10 * number + at).to_dict() for at in range(10)]
        command = [sys.executable, "-c", REMEMBER, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(cells))
        started.append(process)
    for process in started:  # all at once: reading the rest of their input is how they begin
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(results.members(tmp_path)) == 30


def test_a_list_of_cells_with_other_names_than_its_own_is_refused(grid: Grid, tmp_path: Path, bench: Bench) -> None:
    """A run id and the name of a suite are names of files."""
    copy = grid.copy(tmp_path / "runs")
    path = copy.out / "suites" / "mixed.json"
    document = read_json(path)
    cells = document["cells"]
    for changed in (
        {"suite": "../../mixed"},
        {"cells": [cells[0] | {"run_id": "../../../x"}, *cells[1:]]},
        {"cells": [cells[0] | {"run_id": "0" * 12}, *cells[1:]]},
        {"cells": [cells[0] | {"spec": cells[1]["spec"]}, *cells[1:]]},
    ):
        write_json(path, document | changed)
        for command in (("status",), ("show", cells[0]["run_id"]), ("export",), ("sync",)):
            done = bench(*command, "--out", copy.out)
            assert done.code == 2
            assert done.error.startswith(f"error: {path} is ")
            assert len(done.error.strip().splitlines()) == 1


def test_a_folder_being_made_by_another_process_is_not_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's marker appears after the look around."""
    out = tmp_path / "runs"
    out.mkdir()
    examine = results.examine

    def marker_appears(path: Path, shape: Any) -> Any:
        write_json(out / results.MARKER, {"schema": 1})
        (out / "suites").mkdir(exist_ok=True)
        return examine(path, shape)

    monkeypatch.setattr(results, "examine", marker_appears)
    results.check(out)
    results.check(out)


def test_an_export_of_some_rows_leaves_the_folders_own_tables_whole(grid: Grid, bench: Bench) -> None:
    before = (grid.out / "results.csv").read_bytes()
    refused = bench("export", "--out", grid.out, "--where", "method=dst")
    assert (refused.code, refused.error.count("\n")) == (2, 0)
    assert "--where takes rows for --to" in refused.error
    assert (grid.out / "results.csv").read_bytes() == before


def test_an_export_elsewhere_holds_the_filtered_cells_alone(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    done = bench("export", "--out", grid.out, "--where", "method=dst", "--to", tmp_path / "tables")
    assert done.code == 0
    with (tmp_path / "tables" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"dst"}
    with (tmp_path / "tables" / "traces.csv").open() as file:
        assert {row["run_id"] for row in csv.DictReader(file)} == {row["run_id"] for row in rows}


def test_no_mean_is_over_cells_of_other_hyperparameters() -> None:
    data, model = Data(name="synthetic"), Model(name="lenet-300-100")
    optimizer = Optimizer(lr=0.1, batch_size=8, epochs=1)
    specs = [
        cell("dst", data=data, model=model, optimizer=optimizer, seed=seed, threshold=shape)
        for shape in ("vector", "scalar")
        for seed in (0, 1)
    ]
    found = distinctions(specs)
    assert [found[spec.run_id]["threshold"] for spec in specs] == ["vector"] * 2 + ["scalar"] * 2
    assert all("threshold" not in told for told in distinctions(specs[:2]).values())
