"""Tables outside run folders: which cells count as done there, and how rows of a run folder join them."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from grids import Bench, Grid

from benchmark import results
from benchmark.commands import check_tables, published
from benchmark.results import COLUMNS
from benchmark.spec import SpecError


def rows_of(grid: Grid, *statuses: str) -> list[results.Row]:
    return [row for row in results.rows(grid.out) if not statuses or row["status"] in statuses]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(file: Path, run_id: str, /, **changed: Any) -> None:
    rows = [{**row, **changed} if row["run_id"] == run_id else row for row in table(file)]
    results.write_csv(file, COLUMNS, rows)


def test_a_million_equal_columns_are_refused_at_once(tmp_path: Path) -> None:
    """Comparing each with all before it took hours."""
    (tmp_path / "results.csv").write_text(",".join(COLUMNS) + ",seed" * 1_000_000 + "\n")
    with pytest.raises(SpecError, match="unknown or repeated column 'seed'"):
        published.read(tmp_path / "results.csv")


def test_the_finished_rows_of_a_table_are_looked_for_once(grid: Grid) -> None:
    """`check` asks each table for them once per row of the others."""
    read = check_tables.read(grid.out / "results.csv", beside=())
    assert read.finished is read.finished
    assert {row["status"] for row in read.finished.values()} == {"done", "diverged"}


def test_rows_join_a_table_in_two_batches_as_in_one(grid: Grid, tmp_path: Path) -> None:
    rows = rows_of(grid)
    assert published.merge(rows, grid.out, tmp_path / "one") == len(rows)
    for part in (rows[:2], rows[2:]):
        assert published.merge(part, grid.out, tmp_path / "two") == len(part)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert table(tmp_path / "one" / "results.csv") == table(grid.out / "results.csv")
    assert table(tmp_path / "one" / "traces.csv") == table(grid.out / "traces.csv")


def test_a_table_of_an_earlier_version_lacks_later_columns_and_takes_new_rows(grid: Grid, tmp_path: Path) -> None:
    done, diverged = rows_of(grid, "done"), rows_of(grid, "diverged")
    published.merge(done, grid.out, tmp_path)
    earlier = [name for name in COLUMNS if name != "train_cpu_seconds"]
    old = [{name: row[name] for name in earlier} for row in table(tmp_path / "results.csv")]
    results.write_csv(tmp_path / "results.csv", earlier, old)
    assert published.done([tmp_path]).run_ids == {row["run_id"] for row in done}
    assert published.merge([*done, *diverged], grid.out, tmp_path) == len(diverged)
    assert [row["train_cpu_seconds"] for row in table(tmp_path / "results.csv")] == [""] * (len(done) + len(diverged))


def test_a_byte_order_mark_is_no_part_of_a_table(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    """Spreadsheet programs write one, and `analysis build` reads past it."""
    done = rows_of(grid, "done")
    published.merge(done, grid.out, tmp_path)
    marked = [tmp_path / name for name in ("results.csv", "traces.csv", "layers.csv")]
    for file in marked:
        file.write_text("\ufeff" + file.read_text())
    assert published.done([tmp_path]).run_ids == {row["run_id"] for row in done}
    finished = bench("check", tmp_path)
    assert finished.code == 0, finished.stdout
    published.merge(rows_of(grid, "diverged"), grid.out, tmp_path)
    assert not any(file.read_text().startswith("\ufeff") for file in marked)


def test_merging_twice_changes_nothing(grid: Grid, tmp_path: Path) -> None:
    published.merge(rows_of(grid, "done", "diverged"), grid.out, tmp_path)
    before = contents(tmp_path)
    assert published.merge(rows_of(grid, "done", "diverged"), grid.out, tmp_path) == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize("names", [("traces.csv",), ("layers.csv",), ("traces.csv", "layers.csv")])
def test_a_finished_row_gets_the_records_that_the_tables_lost(
    names: tuple[str, ...], grid: Grid, tmp_path: Path
) -> None:
    done = rows_of(grid, "done")
    published.merge(done, grid.out, tmp_path)
    before = contents(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    assert published.merge(done[:1], grid.out, tmp_path) == 0
    assert {row["run_id"] for name in names for row in table(tmp_path / name)} == {done[0]["run_id"]}
    assert published.merge(done, grid.out, tmp_path) == 0
    assert contents(tmp_path) == before


def test_two_merges_at_once_lose_no_row(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, diverged = rows_of(grid, "done"), rows_of(grid, "diverged")
    other = threading.Thread(target=published.merge, args=(diverged, grid.out, tmp_path / "to"))
    write_parquet = results.write_parquet

    def while_another_merges(*arguments: Any) -> None:
        if not other.ident:
            other.start()
            other.join(timeout=1)
        write_parquet(*arguments)

    monkeypatch.setattr(results, "write_parquet", while_another_merges)
    published.merge(done, grid.out, tmp_path / "to")
    other.join(timeout=60)

    found = {row["run_id"] for row in table(tmp_path / "to" / "results.csv")}
    assert found == {row["run_id"] for row in (*done, *diverged)}


def test_a_pending_row_is_replaced_when_its_cell_is_done_and_never_the_other_way(grid: Grid, tmp_path: Path) -> None:
    done = rows_of(grid, "done")
    pending = [{**row, **dict.fromkeys(results.MEASURED, ""), "status": "pending"} for row in done]
    published.merge(pending, grid.out, tmp_path)
    assert {row["status"] for row in table(tmp_path / "results.csv")} == {"pending"}
    assert published.merge(done, grid.out, tmp_path) == len(done)
    assert published.merge(pending, grid.out, tmp_path) == 0
    assert {row["status"] for row in table(tmp_path / "results.csv")} == {"done"}
    assert {row["run_id"] for row in table(tmp_path / "layers.csv")} == {row["run_id"] for row in done}


def test_a_row_gives_way_only_to_a_better_one(grid: Grid, tmp_path: Path) -> None:
    (failed,) = rows_of(grid, "failed")
    waiting = {**failed, "status": "pending", "error": ""}
    assert published.merge([failed], grid.out, tmp_path) == 1
    assert published.merge([waiting], grid.out, tmp_path) == 0
    assert [row["status"] for row in table(tmp_path / "results.csv")] == ["failed"]
    assert published.merge([waiting], grid.out, tmp_path / "waiting") == 1
    assert published.merge([waiting], grid.out, tmp_path / "waiting") == 0
    assert published.merge([failed], grid.out, tmp_path / "waiting") == 1


def test_a_cell_in_both_has_the_memberships_of_both(grid: Grid, tmp_path: Path) -> None:
    row, *others = rows_of(grid, "done")
    changed = {"suite": "first", "protocol": "official", "departs": "optimizer.epochs=2 (suite: 20)"}
    own = {"suite": "second", "protocol": "paper", "departs": ""}
    both = {"suite": "first;second", "protocol": "paper;official", "departs": ""}
    for to, given in ((tmp_path / "one", (changed, own)), (tmp_path / "two", (own, changed))):
        assert [published.merge([row | some, *others], grid.out, to) for some in given] == [1 + len(others), 1]
        found = table(to / "results.csv")[0]
        assert {name: found[name] for name in both} == both
        assert found["test_accuracy"] == str(row["test_accuracy"])
        assert len(table(to / "results.csv")) == 1 + len(others)


def test_no_row_joins_a_run_folder(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    """Its next command would write its tables without the row."""
    results.prepare(tmp_path / "runs")
    refused = bench("export", "--out", grid.out, "--to", tmp_path / "runs")
    assert (refused.code, "is a run folder" in refused.error) == (2, True)
    assert not (tmp_path / "runs" / "results.csv").exists()


def test_a_finished_row_with_other_numbers_is_refused_and_nothing_is_written(grid: Grid, tmp_path: Path) -> None:
    rows = rows_of(grid, "done")
    published.merge(rows[:1], grid.out, tmp_path)
    rewrite(tmp_path / "results.csv", rows[0]["run_id"], test_accuracy="12.5")
    before = contents(tmp_path)
    with pytest.raises(SpecError, match=rf"{rows[0]['run_id']} with test_accuracy 12\.5, the run folder has"):
        published.merge(rows, grid.out, tmp_path)
    assert contents(tmp_path) == before


def test_only_the_time_may_differ_between_two_trainings_of_a_cell(grid: Grid, tmp_path: Path) -> None:
    rows = rows_of(grid, "done")
    published.merge(rows, grid.out, tmp_path)
    rewrite(tmp_path / "results.csv", rows[0]["run_id"], train_seconds="1e6", device="another")
    assert published.merge(rows, grid.out, tmp_path) == 0


def test_a_table_that_another_program_saved_writes_numbers_in_its_own_way(grid: Grid, tmp_path: Path) -> None:
    """pandas writes 2.0 for 2 where a column has empty values."""
    rows = rows_of(grid, "done", "diverged")
    published.merge(rows, grid.out, tmp_path)
    file = tmp_path / "results.csv"
    theirs = pd.read_csv(file, dtype={"run_id": str})
    theirs.astype({"epochs": float, "mask_flips": float}).to_csv(file, index=False)
    assert {row["epochs"] for row in table(file)} > {"2.0"}
    before = contents(tmp_path)["results.csv"]
    assert published.merge(rows, grid.out, tmp_path) == 0
    assert contents(tmp_path)["results.csv"] == before
    rewrite(file, rows[0]["run_id"], epochs="3.0")
    with pytest.raises(SpecError, match=r"with epochs 3\.0, the run folder has [12]:"):
        published.merge(rows, grid.out, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.csv", b"a,b\n1,2\n", "is no table of ours: it has no column 'run_id'"),
        ("results.csv", b"\xff\xfe\x00", "cannot be read as a table"),
        ("results.csv", ",".join([*COLUMNS, "price"]).encode() + b"\n", "unknown or repeated column 'price'"),
        ("results.csv", ",".join([*COLUMNS, "seed"]).encode() + b"\n", "unknown or repeated column 'seed'"),
        ("results.csv", ";".join(COLUMNS).encode() + b"\n", "it has no column 'run_id'"),
        ("results.csv", b"", "it has no column 'run_id'"),
        ("results.parquet", b"PAR1", "cannot be read as a table"),
        ("traces.csv", b"run_id,epoch,step,name,value,unit\n", "unknown or repeated column 'unit'"),
        ("layers.csv", b"layer,thickness\nroof,3\n", "is no table of ours: it has no column 'run_id'"),
        ("traces.csv", b"run_id,epoch,step,name,value\nx,1\n", "line 2: it does not have 5 values"),
    ],
)
def test_a_foreign_table_is_refused_and_left_as_it_is(
    grid: Grid, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=message):
        published.merge(rows_of(grid, "done"), grid.out, tmp_path)
    assert contents(tmp_path) == {name: content}


def test_a_foreign_file_ends_the_command_with_one_line_and_code_2(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    theirs = b"date,price\n2026-01-01,3\n"
    (tmp_path / "results.csv").write_bytes(theirs)
    done = bench("export", "--out", grid.out, "--to", tmp_path)
    line = f"error: {tmp_path / 'results.csv'} is no table of ours: it has no column 'run_id'"
    assert (done.code, done.error.strip()) == (2, line)
    assert contents(tmp_path) == {"results.csv": theirs}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("export", name) for name in ("results.csv", "traces.csv", "layers.csv", "results.parquet")),
        ("plan", "results.csv"),
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(grid: Grid, tmp_path: Path, command: str, name: str) -> None:
    os.mkfifo(tmp_path / name)
    plan = ("plan", "--suite", grid.suite, "--out", tmp_path / "runs", "--done-in", tmp_path)
    arguments = map(str, ("export", "--out", grid.out, "--to", tmp_path) if command == "export" else plan)
    ended = subprocess.run([sys.executable, "-m", "benchmark", *arguments], capture_output=True, text=True, timeout=60)
    message = f"error: {tmp_path / name} is damaged (not a regular file): remove it, or put a table in its place"
    assert (ended.returncode, ended.stderr.strip()) == (2, message)


def test_a_parquet_file_of_somebody_else_is_left_as_it_is(grid: Grid, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"price": [3.0]}), tmp_path / "results.parquet")
    before = contents(tmp_path)
    with pytest.raises(SpecError, match=r"results\.parquet is no table of ours: move it away"):
        published.merge(rows_of(grid, "done"), grid.out, tmp_path)
    assert contents(tmp_path) == before


def test_links_in_the_place_of_tables_are_replaced_and_not_followed(grid: Grid, tmp_path: Path) -> None:
    to, outside = tmp_path / "to", tmp_path / "outside"
    published.merge(rows_of(grid, "done")[:1], grid.out, to)
    shutil.copytree(to, outside)
    for path in outside.iterdir():
        (to / path.name).unlink()
        (to / path.name).symlink_to(path)
    before = contents(outside)
    assert published.merge(rows_of(grid, "done"), grid.out, to) == len(rows_of(grid, "done")) - 1
    assert contents(outside) == before
    assert not any(path.is_symlink() for path in to.iterdir())


def test_a_stale_parquet_file_is_written_again(grid: Grid, tmp_path: Path) -> None:
    import pyarrow.parquet

    rows = rows_of(grid, "done")
    published.merge(rows[:1], grid.out, tmp_path)
    stale = (tmp_path / "results.parquet").read_bytes()
    published.merge(rows, grid.out, tmp_path)
    (tmp_path / "results.parquet").write_bytes(stale)
    assert published.merge(rows, grid.out, tmp_path) == 0
    found = pyarrow.parquet.read_table(tmp_path / "results.parquet").column("run_id").to_pylist()
    assert found == [row["run_id"] for row in table(tmp_path / "results.csv")]


@pytest.mark.parametrize(
    "changed", [{"run_id": "../../../../x"}, {"seed": "77"}, {"spec": "{}"}, {"alpha": "0.5"}, {"weight_max": "high"}]
)
def test_rows_join_no_table_with_a_row_that_is_not_its_cells(
    grid: Grid, tmp_path: Path, changed: dict[str, str]
) -> None:
    rows = rows_of(grid, "done")
    published.merge(rows[:2], grid.out, tmp_path)
    rewrite(tmp_path / "results.csv", rows[1]["run_id"], **changed)
    before = contents(tmp_path)
    with pytest.raises(SpecError, match=r"results\.csv, row 3: .*; correct or remove that row first"):
        published.merge(rows, grid.out, tmp_path)
    assert contents(tmp_path) == before


def test_a_table_of_an_earlier_version_lacks_columns_and_is_read_and_joined(grid: Grid, tmp_path: Path) -> None:
    rows = rows_of(grid, "done")
    published.merge(rows, grid.out, tmp_path)
    file, later = tmp_path / "results.csv", ("weight_max", "train_seconds")
    old = [{name: value for name, value in row.items() if name not in later} for row in table(file)]
    results.write_csv(file, list(old[0]), old[:2])
    assert published.done([tmp_path]).run_ids == {row["run_id"] for row in old[:2]}
    assert published.merge(rows, grid.out, tmp_path) == len(rows) - 2
    assert [row["weight_max"] == "" for row in table(file)] == [i < 2 for i in range(len(rows))]


def test_only_intact_rows_count_as_done(grid: Grid, tmp_path: Path) -> None:
    published.merge(rows_of(grid), grid.out, tmp_path)
    done = [row["run_id"] for row in rows_of(grid, "done")]
    (diverged,) = (row["run_id"] for row in rows_of(grid, "diverged"))  # as final as in a run folder
    found = published.done([tmp_path])
    assert (found.run_ids, found.ignored) == ({*done, diverged}, ())
    assert [row["test_accuracy"] for row in found.rows.values()] == [
        str(r["test_accuracy"]) for r in rows_of(grid, "done", "diverged")
    ]
    assert published.done([tmp_path / "results.csv"]).run_ids == {*done, diverged}
    file = tmp_path / "results.csv"
    rewrite(file, done[0], test_accuracy="nan")
    assert published.done([tmp_path]).run_ids == {*done[1:], diverged}
    rewrite(file, done[1], departs="drift: threads: 1 -> 2")
    assert published.done([tmp_path]).run_ids == {*done[2:], diverged}
    rewrite(file, done[2], spec=table(file)[0]["spec"])
    left = published.done([tmp_path])
    assert left.run_ids == {diverged}
    places = [f"{file}, row {i}: " for i, row in enumerate(table(file), 2) if row["run_id"] in done]
    assert [line.startswith(place) for line, place in zip(left.ignored, places, strict=True)] == [True] * 3
    assert [line.partition(": ")[2].split(":")[0] for line in left.ignored] == [
        "test_accuracy is 'nan'",
        "it was resumed in a changed environment (drift)",
        f"spec hashes to {table(file)[0]['run_id']}, not to the run_id {done[2]}",
    ]


def test_a_row_of_a_changed_suite_counts_as_done(grid: Grid, tmp_path: Path) -> None:
    published.merge(rows_of(grid, "done"), grid.out, tmp_path)
    changed, resumed, *_ = (row["run_id"] for row in rows_of(grid, "done"))
    rewrite(tmp_path / "results.csv", changed, departs="drift: suite: optimizer.epochs: 2 -> 3")
    rewrite(tmp_path / "results.csv", resumed, departs="drift: suite: alpha: 1 -> 2;drift: threads: 1 -> 2")
    found = published.done([tmp_path])
    assert changed in found.run_ids
    assert resumed not in found.run_ids
    assert len(found.ignored) == 1


def ignored(grid: Grid, folder: Path, column: str, value: str) -> tuple[str, ...]:
    """What `done` says of a table whose first row has this value; it counts all other rows."""
    first, *others = rows_of(grid, "done")
    published.merge([first, *others], grid.out, folder)
    rewrite(folder / "results.csv", first["run_id"], **{column: value})
    found = published.done([folder])
    assert found.run_ids == {row["run_id"] for row in others}
    return found.ignored


@pytest.mark.parametrize(
    ("column", "value"), [("dataset", "mnist"), ("model", "vgg16"), ("alpha", "1.0"), ("density_target", "0.9")]
)
def test_a_row_that_disagrees_with_its_spec_does_not_count_as_done(
    grid: Grid, tmp_path: Path, column: str, value: str
) -> None:
    (said,) = ignored(grid, tmp_path, column, value)
    assert said.startswith(f"{tmp_path / 'results.csv'}, row 2: {column} is '{value}', but its spec says ")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("density", "27.2", "density is 27.2: it must be in [0, 1]"),
        ("min_density", "-0.1", "min_density is -0.1: it must be in [0, 1]"),
        ("test_accuracy", "927", "test_accuracy is 927: it must be in [0, 100]"),
        ("threshold_resets", "inf", "threshold_resets: 'inf' is no finite number"),
        ("threshold_resets", "nan", "threshold_resets is 'nan': it must be a finite number"),
        ("train_cpu_seconds", "1_0", "train_cpu_seconds: '1_0' is no finite number"),
        ("epochs", "", "epochs is '': it must be a finite number"),
    ],
)
def test_a_row_with_a_number_that_makes_no_sense_does_not_count_as_done(
    grid: Grid, tmp_path: Path, column: str, value: str, said: str
) -> None:
    assert ignored(grid, tmp_path, column, value) == (f"{tmp_path / 'results.csv'}, row 2: {said}",)


@pytest.mark.parametrize(
    "changed", [{"test_accuracy": "12.5"}, {"status": "diverged"}, {"weight_max": ""}, {"density": "0.5"}]
)
def test_two_finished_rows_of_one_cell_that_differ_are_refused(
    bench: Bench, grid: Grid, tmp_path: Path, changed: dict[str, str]
) -> None:
    rows = rows_of(grid, "done")
    for folder in ("one", "two"):
        published.merge(rows, grid.out, tmp_path / folder)
    rewrite(tmp_path / "two" / "results.csv", rows[1]["run_id"], device="another", train_seconds="3", density="nan")
    assert len(published.done([tmp_path]).rows) == len(rows)  # an ignored row conflicts with none
    rewrite(tmp_path / "two" / "results.csv", rows[1]["run_id"], **{"density": rows[1]["density"]} | changed)
    (name, value), both = changed.popitem(), [tmp_path / folder / "results.csv" for folder in ("two", "one")]
    message = (
        f"{both[0]}, row 3: cell {rows[1]['run_id']} has {name} {value}, but {rows[1][name]} in {both[1]}, row 3: "
        "keep one of the two rows"
    )
    refused = bench("plan", "--suite", grid.suite, "--out", tmp_path / "runs", "--done-in", tmp_path)
    assert (refused.code, refused.error) == (2, f"error: {message}")


def test_a_row_twice_in_one_table_is_one_cell(grid: Grid, tmp_path: Path) -> None:
    rows = rows_of(grid, "done")
    results.write_csv(tmp_path / "results.csv", COLUMNS, [*rows, *rows])
    assert len(published.done([tmp_path]).rows) == len(rows)


def test_the_committed_tables_are_all_done(tmp_path: Path) -> None:
    found = published.done([Path(__file__).resolve().parents[3] / "paper_figures/results"])
    assert found.ignored == ()
    assert len(found.run_ids) >= 92


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"holds no results\.csv"):
        published.done([tmp_path])
    with pytest.raises(SpecError, match="does not exist"):
        published.done([tmp_path / "none"])


def test_run_and_plan_skip_cells_that_a_table_has_done(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    exported = bench("export", "--out", grid.out, "--where", "status=done", "--to", tmp_path / "tables")
    assert "3 rows, 3 of them new or changed" in exported.stdout
    again = bench("export", "--out", grid.out, "--where", "status=done", "--to", tmp_path / "tables")
    assert "3 rows, 0 of them new or changed" in again.stdout
    bench("export", "--out", grid.out, "--where", "status=diverged", "--to", tmp_path / "diverged")
    common = ("--suite", grid.suite, "--where", "method=dense,dst,static", "--out", tmp_path / "runs")
    plan = bench("plan", *common, "--done-in", tmp_path / "tables", "--done-in", tmp_path / "diverged", "--json")
    assert (plan.json["to_run"], plan.json["done_elsewhere"]) == ([], 4)
    plan = bench("plan", *common, "--done-in", tmp_path / "tables", "--json")
    assert [entry["run_id"] for entry in plan.json["to_run"]] == [
        row["run_id"] for row in rows_of(grid, "diverged") if row["method"] == "dense"
    ]
    assert plan.json["done_elsewhere"] == 3
    done = bench("run", *common, "--where", "status=pending", "--where", "method=dst", "--done-in", tmp_path / "tables")
    assert done.code == 0
    assert f"0 cells, 0 of them ended before; 1 more are finished in {tmp_path / 'tables'}" in done.stdout
    assert "ignored" not in done.stdout
    (static,) = (row["run_id"] for row in rows_of(grid, "done") if row["method"] == "static")
    file = tmp_path / "tables" / "results.csv"
    rewrite(file, static, seed="77")
    plan = bench("plan", *common, "--done-in", tmp_path / "tables", "--json")
    assert static in [entry["run_id"] for entry in plan.json["to_run"]]
    (said,) = plan.json["ignored_elsewhere"]
    assert said.endswith(": seed is '77', but its spec says 0")
    plan = bench("plan", *common, "--done-in", tmp_path / "tables")
    text = f"finished rows ignored there: 1, the first: {said}"
    assert f"2 more are finished in {tmp_path / 'tables'}; {text}" in plan.stdout
    refused = bench("run", *common, "--done-in", tmp_path / "none")
    assert (refused.code, refused.error.strip()) == (2, f"error: --done-in {tmp_path / 'none'} does not exist")
