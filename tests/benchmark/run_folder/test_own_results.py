"""Another cell's result or records, copied or linked into a cell, are not believed; nothing is lost by them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import grids
import pytest
from grids import Bench, Grid
from one_cell import MEASURED, Runner, make_spec, result_document

from benchmark import results
from benchmark.run_folder.attempts import folder_of
from benchmark.run_folder.files import sealed, write_json
from benchmark.run_folder.links import FolderError
from benchmark.run_folder.result import examine_result, result_of

INTO: dict[str, Callable[[Path, Path], object]] = {
    "copy": shutil.copyfile,
    "hard link": os.link,
    "link": os.symlink,
}


def cell_of(out: Path, method: str) -> Path:
    (run_id,) = [name for name, row in grids.rows(out).items() if (row["method"], row["status"]) == (method, "done")]
    return out / "cells" / run_id


@pytest.mark.parametrize("way", INTO)
def test_a_dense_cells_result_in_a_dst_cell_is_not_believed_and_the_cell_is_trained_again(
    way: str, bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dense, dst = cell_of(copy.out, "dense"), cell_of(copy.out, "dst")
    before = {path: path.read_bytes() for path in dense.rglob("*") if path.is_file()}
    for name in ("result.json", "metrics.jsonl"):
        (dst / name).unlink()
        INTO[way](dense / name, dst / name)
    (row,) = [row for row in results.rows(copy.out) if row["run_id"] == dst.name]
    assert (row["status"], row["density"]) == ("pending", "")
    assert row["error"] == f"result.json is of cell {dense.name}: the cell will be run again"
    shown = bench("show", dst.name, "--out", copy.out, "--json").json
    assert (shown["layers"], shown["row"]["status"]) == (None, "pending")
    finished = bench("run", "--suite", copy.suite, "--out", copy.out, "--workers", "1", "--no-mlflow")
    assert f"{dst / 'result.json'} is of cell {dense.name}: the cell is run again" in finished.stdout
    assert grids.tables(copy.out) == grids.tables(grid.out)
    assert {path: path.read_bytes() for path in before} == before
    (aside,) = dst.glob("result.damaged-*.json")
    assert aside.read_bytes() == before[dense / "result.json"]


def test_a_result_in_a_cell_that_was_never_begun_is_not_believed(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    copy = grid.copy(tmp_path / "runs")
    dense, dst = cell_of(copy.out, "dense"), cell_of(copy.out, "dst")
    shutil.rmtree(dst)
    shutil.copytree(dense, dst)
    shutil.rmtree(dst / "attempts")
    (row,) = [row for row in results.rows(copy.out) if row["run_id"] == dst.name]
    assert row["status"] == "pending"
    planned = bench("plan", "--suite", copy.suite, "--out", copy.out, "--json").json
    assert [cell["run_id"] for cell in planned["to_run"]] == [dst.name]


def test_records_of_another_cell_are_put_back_from_the_winners_attempt(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dense, dst = cell_of(copy.out, "dense"), cell_of(copy.out, "dst")
    shutil.copyfile(dense / "metrics.jsonl", dst / "metrics.jsonl")
    assert bench("export", "--out", copy.out).code == 0
    assert (copy.out / "traces.csv").read_bytes() == (grid.out / "traces.csv").read_bytes()


def test_a_cell_whose_records_are_lost_is_trained_again_and_the_tables_have_the_others(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dst = cell_of(copy.out, "dst")
    for path in dst.rglob("metrics.jsonl"):
        path.write_bytes(b"garbage")
    assert bench("export", "--out", copy.out).code == 0
    (row,) = [row for row in results.rows(copy.out) if row["run_id"] == dst.name]
    lost = "metrics.jsonl is not the one of its result.json"
    assert (row["status"], row["error"]) == ("pending", f"{lost}: the cell will be run again")
    for name, rows in grids.tables(grid.out).items():
        others = [row for row in rows if row["run_id"] != dst.name]
        assert [row for row in grids.tables(copy.out)[name] if row["run_id"] != dst.name] == others
    command = ("run", "--suite", copy.suite, "--out", copy.out, "--workers", "1", "--no-mlflow")
    finished = bench(*command)
    assert f"{dst / 'metrics.jsonl'} is not the one of its result.json: the cell is run again" in finished.stdout
    assert grids.tables(copy.out) == grids.tables(grid.out)
    assert "5 of them ended before" in bench(*command).stdout


def test_records_that_are_none_are_one_line_though_their_checksum_holds(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dst = cell_of(copy.out, "dst")
    result = result_of(dst)
    for content, reason in ((b"[]\n", "not an object"), (b'{"epoch": 1}\n', "step"), (b'{"epoch": "1', "JSON")):
        (dst / "metrics.jsonl").write_bytes(content)
        write_json(dst / "result.json", sealed({**result, "metrics_sha256": hashlib.sha256(content).hexdigest()}))
        refused = bench("export", "--out", copy.out)
        assert refused.code == 2
        assert f"{dst / 'metrics.jsonl'} is damaged, line 1" in refused.error
        assert reason in refused.error


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": "0" * 12}, f"is of cell {'0' * 12}"),
        ({"run_id": None}, "run_id is not a text"),
        ({"status": "failed"}, "status is not done or diverged"),
        ({"attempt": "1"}, "attempt is not a whole number"),
        ({"attempt": True}, "attempt is not a whole number"),
        ({"attempt": 10**299}, "attempt is no number of an attempt"),
        ({"metrics_sha256": "0"}, "metrics.jsonl is not the one of its result.json"),
        ({"measured": {"test_accuracy": "=1+1"}}, "measured.test_accuracy is not a number or null"),
        ({"measured": {}}, "measured.epochs is missing"),
        *(({"measured": MEASURED | {name: None}}, f"measured.{name} is not a number") for name in MEASURED),
        ({"measured": MEASURED | {"density": 27.2}}, "measured.density is not in [0, 1]"),
        ({"measured": MEASURED | {"density_at_best_test_accuracy": -1}}, "best_test_accuracy is not in [0, 1]"),
        ({"layers": {"fc": {"weights": 1}}}, "layers.fc.kept is missing"),
        ({"environment": {}}, "environment.commit is missing"),
    ],
)
def test_a_sealed_result_without_what_a_result_has_is_not_believed(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    cell = tmp_path / "0123456789ab"
    cell.mkdir()
    (cell / "metrics.jsonl").touch()
    write_json(cell / "result.json", result_document(cell))
    assert result_of(cell) is not None
    write_json(cell / "result.json", result_document(cell, **changes))
    result, problem = examine_result(cell / "result.json", cell.name)
    assert result is None
    assert reason in problem
    assert problem.startswith(str(cell))


def test_no_command_breaks_at_a_sealed_result_without_numbers_and_the_cell_is_trained_again(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dst = cell_of(copy.out, "dst")
    write_json(dst / "result.json", sealed({**(result_of(dst) or {}), "measured": {}}))
    where = ("--suite", copy.suite, "--where", "method=dst", "--out", copy.out)
    assert [cell["run_id"] for cell in bench("plan", *where, "--json").json["to_run"]] == [dst.name]
    assert "result.json is damaged (measured.epochs is missing)" in bench("status", "--out", copy.out).stdout
    assert bench("export", "--out", copy.out).code == 0
    said = bench("check", copy.out).stdout
    assert f"{dst / 'result.json'}: result.json is damaged (measured.epochs is missing): train the cell again" in said
    assert bench("run", *where, "--workers", "1", "--no-mlflow").code == 0
    assert grids.tables(copy.out) == grids.tables(grid.out)


@pytest.mark.parametrize("name", ["cells/{}/result.json", "cells/{}/metrics.jsonl", "suites/mixed.json"])
@pytest.mark.parametrize("way", ["link", "pipe"])
def test_a_check_opens_no_link_and_no_pipe_of_a_run_folder(
    way: str, name: str, bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    path = copy.out / name.format(cell_of(copy.out, "dst").name)
    path.rename(tmp_path / "elsewhere")
    if way == "link":  # to the very file, which would pass if it were followed
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    problems = bench("check", copy.out, "--json").json["problems"]
    (said,) = [problem["text"] for problem in problems if str(path) in problem["file"] + problem["text"]]
    assert said.startswith("is a link, which may lead anywhere, and" if way == "link" else "is no regular file and")


def test_a_layer_with_more_than_its_counts_has_only_these_in_the_table(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy = grid.copy(tmp_path / "runs")
    dst = cell_of(copy.out, "dst")
    result = result_of(dst) or {}
    layers = {name: {**counts, "run_id": "x", "price": 3} for name, counts in result["layers"].items()}
    write_json(dst / "result.json", sealed({**result, "layers": layers}))
    exported = bench("export", "--out", copy.out)
    assert exported.code == 0, exported.stderr
    assert (copy.out / "layers.csv").read_bytes() == (grid.out / "layers.csv").read_bytes()


@pytest.mark.parametrize("linked", [".", "attempts"])
def test_a_folder_that_is_a_link_to_another_cells_is_not_written_to(linked: str, tmp_path: Path) -> None:
    first, second = Runner(tmp_path, make_spec(epochs=1)), Runner(tmp_path, make_spec(epochs=1, seed=1))
    assert first.run().status == "done"
    before = {path: path.read_bytes() for path in first.cell.rglob("*") if path.is_file()}
    (second.cell / linked).parent.mkdir(parents=True, exist_ok=True)
    (second.cell / linked).symlink_to(first.cell / linked)
    with pytest.raises(FolderError, match=f"{second.cell / linked} is a link"):
        second.run()
    assert {path: path.read_bytes() for path in first.cell.rglob("*") if path.is_file()} == before
    (second.cell / linked).unlink()
    assert second.run().status == "done"


def test_a_cell_that_was_moved_to_another_disk_behind_a_link_goes_on_once_it_is_back(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runs", make_spec())
    assert runner.run(stop_after=1).status == "interrupted"
    shutil.move(runner.cell, tmp_path / runner.cell.name)
    runner.cell.symlink_to(tmp_path / runner.cell.name)
    with pytest.raises(FolderError, match=f"{runner.cell} is a link"):
        runner.run()
    runner.cell.unlink()
    shutil.move(tmp_path / runner.cell.name, runner.cell)
    assert (runner.run().status, len(runner.resumed)) == ("done", 1)


def test_a_checkpoint_that_was_linked_from_another_cell_is_passed_over(tmp_path: Path) -> None:
    """See also `test_damaged_checkpoints`: copies and exchanged folders."""
    first, second = Runner(tmp_path, make_spec()), Runner(tmp_path, make_spec(seed=1))
    assert first.run(stop_after=2).status == "interrupted"
    target = folder_of(second.cell, 1)
    target.mkdir(parents=True)
    for path in folder_of(first.cell, 1).iterdir():
        if path.name != "heartbeat":
            (target / path.name).hardlink_to(path)
    assert second.run().status == "done"
    assert (second.resumed, len(second.warnings)) == ([], 2)
    assert all(f"it belongs to cell {first.spec.run_id}" in warning for warning in second.warnings)
