"""Bad input is named by file and row; tables of several machines merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.data.read import InputError, load

ROWS = [synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4) for seed in range(3)]


def edited(path: Path, edit: Callable[[str], str]) -> Path:
    path.write_text(edit(path.read_text()))
    return path


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    return [row | values if i == number else row for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (changed(1, test_accuracy="nan"), "row 3: test_accuracy of a done cell is empty or NaN"),
        (changed(2, density=""), "row 4: density of a done cell is empty or NaN"),
        (changed(0, density=1.5), "row 2: density 1.5 is not in [0, 1]"),
        (changed(0, best_test_accuracy=998.0), "row 2: best_test_accuracy 998.0 is not in [0, 100]"),
        (changed(1, test_accuracy="97,1"), "row 3: test_accuracy '97,1' is no number"),
        (changed(1, run_id=""), "row 3: run_id is empty"),
        (changed(1, status="finished"), "row 3: status 'finished' is unknown"),
        (changed(1, spec="{"), "row 3: spec is no JSON of a cell"),
        ([*ROWS, ROWS[0] | {"test_accuracy": 11.0}], f"row 5: run_id {ROWS[0]['run_id']} is in row 2 too"),
        ([*ROWS, ROWS[2]], f"row 5: run_id {ROWS[2]['run_id']} is in row 4 too"),
        (changed(0, seed=1.5), "row 2: seed 1.5 is no whole number"),
        (changed(1, min_density=-0.1), "row 3: min_density -0.1 is not in [0, 1]"),
        (changed(1, test_accuracy="inf"), "row 3: test_accuracy inf is not in [0, 100]"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    synthetic.write(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        load([tmp_path])
    assert str(tmp_path / "results.csv") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    edited(synthetic.write(tmp_path, ROWS) / "results.csv", lambda text: text[:-40])
    with pytest.raises(InputError, match=r"results\.csv(, row 4: the file is cut off|.* is damaged)"):
        load([tmp_path])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    edited(synthetic.write(tmp_path, ROWS) / "results.csv", lambda text: text.replace("best_test_accuracy", "best", 1))
    with pytest.raises(InputError, match=r"results\.csv, row 1: no column best_test_accuracy"):
        load([tmp_path])


def test_a_column_of_another_version_is_named(tmp_path: Path) -> None:
    edited(synthetic.write(tmp_path, ROWS) / "results.csv", lambda text: text.replace("error,", "mistake,", 1))
    with pytest.raises(InputError, match=r"results\.csv, row 1: unknown column mistake: not a table of this schema"):
        load([tmp_path])


def test_a_table_of_an_earlier_version_without_cpu_seconds_is_read(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "train_cpu_seconds"} for row in ROWS]
    synthetic.save(tmp_path / "results.csv", list(rows[0]), rows)
    assert load([tmp_path]).results["train_cpu_seconds"].isna().all()


def test_a_run_folder_of_another_schema_version_is_named(tmp_path: Path) -> None:
    synthetic.write(tmp_path, ROWS)
    (tmp_path / "run-folder.json").write_text('{"schema": 99}')
    with pytest.raises(
        InputError, match=r"run-folder\.json: .*results\.csv has schema version 99, this program reads 1"
    ):
        load([tmp_path])
    (tmp_path / "run-folder.json").write_text("{")
    with pytest.raises(InputError, match=r"run-folder\.json is damaged"):
        load([tmp_path])


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.csv").touch()
    with pytest.raises(InputError, match=r"results\.csv is empty"):
        load([tmp_path])


def test_traces_that_are_cut_off_are_named(tmp_path: Path) -> None:
    edited(synthetic.write(tmp_path, synthetic.vgg16(), vgg=True) / "traces.csv", lambda text: text[:-12])
    with pytest.raises(InputError, match=r"traces\.csv, row \d+: "):
        load([tmp_path])


def test_folders_without_tables_and_paths_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results\.csv"):
        load([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        load([tmp_path / "nowhere"])


def test_tables_of_two_machines_merge(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "a", changed(2, status="pending"))
    synthetic.write(tmp_path / "b/deeper", [ROWS[2] | {"suite": "mine"}, ROWS[0] | {"train_seconds": 5.0}])
    results = load([tmp_path]).results
    assert sorted(results["status"]) == ["done"] * 3
    assert results.set_index("run_id").loc[ROWS[2]["run_id"], "suite"] == "mine;mnist"


def test_rows_of_two_machines_that_conflict_are_both_named(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "a", ROWS)
    synthetic.write(tmp_path / "b", changed(1, density=0.5))
    with pytest.raises(InputError) as caught:
        load([tmp_path])
    assert all(str(tmp_path / name / "results.csv") + ", row 3" in str(caught.value) for name in "ab")


def test_one_table_named_twice_counts_once(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, synthetic.vgg16((0,)), vgg=True)
    once, twice = load([folder]), load([folder, folder / "results.csv", folder / "traces.csv"])
    assert [len(once.results), len(once.traces)] == [len(twice.results), len(twice.traces)]


def test_records_of_two_machines_that_conflict_are_named(tmp_path: Path) -> None:
    for name in "ab":
        synthetic.write(tmp_path / name, synthetic.vgg16((0,)), vgg=True)
    assert len(load([tmp_path]).results) == 4, "equal records are no conflict"
    traces = tmp_path / "b" / "traces.csv"
    lines = traces.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if ",test_accuracy," in line)
    for damaged in (
        [*lines[:at], lines[at].rpartition(",")[0] + ",12.5", *lines[at + 1 :]],
        [*lines[:at], *lines[at + 1 :]],
    ):
        traces.write_text("\n".join(damaged) + "\n")
        for order in ("ab", "ba"):
            with pytest.raises(
                InputError, match=r"traces\.csv: run \S+ has other records than in .*traces\.csv: keep one"
            ):
                load([tmp_path / name for name in order])
