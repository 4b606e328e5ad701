"""Bad input is named by file and row; tables of several machines merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.data.conditions import Results
from analysis.data.read import InputError, load
from benchmark.commands import check_tables

ROWS = [synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4) for seed in range(3)]


COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results"
SPEC = json.loads(ROWS[1]["spec"])


def with_text(spec: str) -> list[dict[str, Any]]:
    """The rows with another spec in the second, and the run id of that text."""
    return changed(1, spec=spec, run_id=hashlib.sha256(spec.encode()).hexdigest()[:12])


def with_tree(**fields: Any) -> list[dict[str, Any]]:
    """The same with other fields, as canonical JSON."""
    return with_text(json.dumps(SPEC | fields, sort_keys=True, separators=(",", ":")))


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
        (changed(1, run_id="../../../etc"), "row 3: run_id is '../../../etc': it must be twelve hexadecimal digits"),
        (changed(1, run_id="0" * 12), f"row 3: spec hashes to {ROWS[1]['run_id']}, not to the run_id 000000000000"),
        (changed(1, spec=ROWS[2]["spec"]), "row 3: spec hashes to "),
        (changed(0, alpha=1e-3), "row 2: alpha is 0.001, but its spec says 0.0005"),
        (changed(0, alpha=""), "row 2: alpha is nan, but its spec says 0.0005"),
        (changed(0, density_target=0.5), "row 2: density_target is 0.5, but its spec says ''"),
        (changed(2, seed=3), "row 4: seed is 3.0, but its spec says 2"),
        (changed(2, dataset="digits"), "row 4: dataset is 'digits', but its spec says 'mnist'"),
        (changed(2, model="vgg16"), "row 4: model is 'vgg16', but its spec says 'lenet-300-100'"),
        (changed(2, method="dense"), "row 4: method is 'dense', but its spec says 'dst'"),
        (with_tree(data={"name": "mnist", "paths": 1}), "row 3: spec is no JSON of a cell: unknown data field 'paths'"),
        (with_tree(model=SPEC["model"] | {"a b": 1}), "row 3: spec is no JSON of a cell: unknown model field 'a b'"),
        (with_tree(optimizer={"name": "sgd", "rate": 1}), "row 3: spec is no JSON of a cell: unknown optimizer field"),
        (with_tree(price=1), "row 3: spec is no JSON of a cell: unknown field 'price'"),
        (with_tree(method=SPEC["method"] | {"x=1, y": 1}), "has a hyperparameter 'x=1, y': its name must be a Python"),
        (with_tree(method=SPEC["method"] | {"version": [1]}), "method.version is (1,): it must be int"),
        (with_tree(data={"name": "../mnist"}), "data.name is '../mnist': it must be 1 to 100 of the characters"),
        (with_tree(model={"name": "/abs"}), "model.name is '/abs': it must be 1 to 100 of the characters"),
        (with_tree(method={"name": ".."}), "method.name is '..': it must be 1 to 100 of the characters"),
        (with_tree(data={"name": "mnist", "shape": [[1], 2]}), "data.shape is [[1], 2]: it must hold channels, rows"),
        (with_tree(data={"name": "mnist\nline"}), "data.name is 'mnist\\nline'"),
        (with_tree(data="mnist"), "row 3: spec is no JSON of a cell: "),
        (with_tree(method={**SPEC["method"], "alpha": float("inf")}), "method.alpha is inf: it must be finite"),
        (with_tree(method={**SPEC["method"], "steps": [float("nan")]}), "row 3: spec is no JSON of a cell: "),
        (with_text("[" * 100_000), "row 3: spec is no JSON of a cell: "),
        (with_text("[]"), "row 3: spec is no JSON of a cell: "),
        (with_text(ROWS[1]["spec"] + " "), "row 3: spec is not the canonical JSON of its cell"),
        (with_text(ROWS[1]["spec"].replace('"seed":1', '"seed":01')), "row 3: spec is no JSON of a cell: "),
        (with_text(ROWS[1]["spec"].replace(',"seed":1', "")), "row 3: spec is not the canonical JSON of its cell"),
        (with_text(ROWS[1]["spec"].replace('"seed":1', '"seed":-1')), "seed is -1: it must lie in [0, "),
        (with_tree(seed=2**63), "seed is "),
        (with_tree(seed="1"), "seed is '1': it must be int"),
        (changed(0, seed="9" * 400), "row 2: seed inf is no whole number"),
        (changed(1, train_seconds="9" * 400), "row 3: train_seconds inf is not finite"),
        (changed(1, train_flops="inf"), "row 3: train_flops inf is not finite"),
        (changed(1, threshold_min="-inf"), "row 3: threshold_min -inf is not finite"),
        (with_tree(method=SPEC["method"] | {"alpha": ""}), "method.alpha is '': it must be float or none"),
        (with_tree(method=SPEC["method"] | {"alpha": [1.0]}), "method.alpha is (1.0,): it must be float or none"),
        (with_tree(method=SPEC["method"] | {"seed": 2}, seed=2), "row 3: seed is 1.0, but its spec says 2"),
        (with_text(ROWS[1]["spec"][:-1] + ',"seed":1}'), "row 3: spec is not the canonical JSON of its cell"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    synthetic.write(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        load([tmp_path])
    assert str(tmp_path / "results.csv") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert named_by_check(rows, tmp_path / "bad") - named_by_check(ROWS, tmp_path / "good"), "check passes it"


def named_by_check(rows: list[dict[str, Any]], folder: Path) -> set[str]:
    """What `python -m benchmark check` says of these rows: what passes there has to build."""
    file = synthetic.write(folder, rows) / "results.csv"
    return {f"{problem.row}: {problem.text}" for problem in check_tables.read(file, beside=()).problems}


def test_fields_of_a_method_that_is_not_installed_are_its_own(tmp_path: Path) -> None:
    own = {"per_layer": {"fc1": 0.1, "seed": 4}, "ladder": [[1, 2]], "seed": 5, "text": 'x,"seed":6}'}
    made = with_tree(method={"name": "mine", "version": 7, "alpha": 5e-4} | own, step_records=3)
    made[1] |= {"method": "mine"}
    assert set(load([synthetic.write(tmp_path, made)]).results["method"]) == {"dst", "mine"}


def test_every_committed_table_is_read_whole() -> None:
    files = sorted(COMMITTED.rglob("results.csv"))
    with_rows = {file: len(file.read_text().splitlines()) - 1 for file in files}
    assert {file: len(load([file]).results) for file in files} == with_rows
    assert sum(with_rows.values()) >= 92


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


TRACE = {"run_id": ROWS[0]["run_id"], "epoch": 1, "step": 2, "name": "density", "value": 1.0}
LAYER = {"run_id": ROWS[0]["run_id"], "parameter": "fc1.weight", "weights": 10, "kept": 5}


@pytest.mark.parametrize(
    ("file", "row", "said"),
    [
        ("traces.csv", TRACE | {"value": "inf"}, "value inf is not finite"),
        ("traces.csv", TRACE | {"epoch": "inf"}, "epoch inf is not finite"),
        ("traces.csv", TRACE | {"epoch": 0.5}, "epoch 0.5 is no whole number"),
        ("traces.csv", TRACE | {"step": -1}, "step -1.0 is no whole number"),
        ("layers.csv", LAYER | {"kept": -1}, "kept -1.0 is no whole number"),
        ("layers.csv", LAYER | {"weights": 9.5}, "weights 9.5 is no whole number"),
        ("layers.csv", LAYER | {"kept": 11}, "kept 11.0 is more than 10.0 weights"),
    ],
)
def test_a_bad_number_of_an_epoch_or_a_layer_is_named(
    tmp_path: Path, file: str, row: dict[str, Any], said: str
) -> None:
    synthetic.write(tmp_path, ROWS)
    synthetic.save(tmp_path / file, list(row), [row])
    with pytest.raises(InputError) as caught:
        load([tmp_path])
    assert str(caught.value) == f"{tmp_path / file}, row 2: {said}"


@pytest.mark.parametrize(("file", "row", "other"), [("traces", TRACE, {"value": 2}), ("layers", LAYER, {"kept": 4})])
def test_a_record_that_is_there_twice_is_named(
    tmp_path: Path, file: str, row: dict[str, Any], other: dict[str, Any]
) -> None:
    synthetic.write(tmp_path, ROWS)
    synthetic.save(tmp_path / f"{file}.csv", list(row), [row, row | other])
    with pytest.raises(InputError, match=rf"{file}\.csv, row 3: run_id {ROWS[0]['run_id']} has the same record"):
        load([tmp_path])


@pytest.mark.parametrize("quoted", [False, True])
def test_text_stays_text_in_a_table_that_a_spreadsheet_program_saved(tmp_path: Path, quoted: bool) -> None:
    cells = (synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4) for seed in range(10_000))
    row = next(cell for cell in cells if cell["run_id"].isdigit()) | {"suite": "01", "commit": "1234567"}
    header, newline, body = (synthetic.write(tmp_path, [row]) / "results.csv").read_text().partition("\n")
    names = ",".join(f'"{name}"' if quoted else name for name in header.split(","))
    (tmp_path / "results.csv").write_text(f"\ufeff{names}{newline}{body}", encoding="utf-8")
    found = load([tmp_path]).results.iloc[0]
    assert (found["run_id"], found["suite"], found["commit"]) == (row["run_id"], "01", "1234567")


def test_a_table_of_an_earlier_version_without_cpu_seconds_is_read(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "train_cpu_seconds"} for row in ROWS]
    synthetic.save(tmp_path / "results.csv", list(rows[0]), rows)
    assert load([tmp_path]).results["train_cpu_seconds"].isna().all()


def test_a_table_of_an_earlier_version_without_epochs_has_those_of_the_spec(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "epochs"} for row in ROWS]
    synthetic.save(tmp_path / "results.csv", list(rows[0]), rows)
    assert {condition.epochs for condition in Results(load([tmp_path])).conditions} == {20}


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


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_cell_of_a_protocol_stays_in_it_in_whatever_order_tables_are_read(tmp_path: Path, order: str) -> None:
    """Somebody has the same cell from a suite of their own, changed by --set."""
    synthetic.write(tmp_path / "a", [ROWS[0]])
    synthetic.write(tmp_path / "b", [ROWS[0] | {"protocol": "mine", "departs": "set: method.alpha"}])
    (row,) = load([tmp_path / name for name in order]).results.to_dict("records")
    assert (row["protocol"], row["departs"]) == ("paper;official;mine", "")


def test_rows_of_two_machines_that_conflict_are_both_named(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "a", ROWS)
    synthetic.write(tmp_path / "b", changed(1, density=0.5))
    with pytest.raises(InputError) as caught:
        load([tmp_path])
    assert all(str(tmp_path / name / "results.csv") + ", row 3" in str(caught.value) for name in "ab")


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_rows_of_one_cell_that_differ_in_step_records_conflict_or_the_one_with_them_is_kept(
    tmp_path: Path, order: str
) -> None:
    """Whether steps are recorded changes no training, but it changes the run id."""
    with_steps = [synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4, step_records=1) for seed in range(3)]
    synthetic.write(tmp_path / "a", [row | {"suite": "mine", "protocol": "mine"} for row in with_steps])
    synthetic.write(tmp_path / "b", ROWS)
    kept = load([tmp_path / name for name in order]).results
    assert sorted(kept["run_id"]) == sorted(row["run_id"] for row in with_steps)
    assert set(zip(kept["suite"], kept["protocol"], strict=True)) == {("mine;mnist", "paper;official;mine")}
    synthetic.write(tmp_path / "b", changed(1, density=0.5))
    with pytest.raises(
        InputError, match=r"has density 0\.\d+, but 0\.\d+ in .*, other step_records\): keep one"
    ) as caught:
        load([tmp_path / name for name in order])
    assert all(str(tmp_path / name / "results.csv") + ", row 3" in str(caught.value) for name in "ab")
    synthetic.write(tmp_path / "b", changed(1, status="pending", density=0.5))
    assert set(load([tmp_path / name for name in order]).results["status"]) == {"done"}


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


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_records_come_from_whichever_table_has_them(tmp_path: Path, order: str) -> None:
    """The same cells are done in two folders, and one of these has no traces and no layers."""
    synthetic.write(tmp_path / "a", synthetic.vgg16((0,)))
    whole = load([synthetic.write(tmp_path / "b", synthetic.vgg16((0,)), vgg=True)])
    found = load([tmp_path / name for name in order])
    assert len(whole.traces)
    assert len(whole.layers)
    assert [len(found.traces), len(found.layers)] == [len(whole.traces), len(whole.layers)]


def test_of_two_tables_with_one_cell_the_row_with_executed_flops_is_taken(tmp_path: Path) -> None:
    """A cell that was trained before the column existed, and again after."""
    before = [{name: value for name, value in row.items() if name != "executed_flops"} for row in ROWS]
    (tmp_path / "a").mkdir()
    synthetic.save(tmp_path / "a/results.csv", list(before[0]), before)
    synthetic.write(tmp_path / "b", [row | {"executed_flops": 5e12} for row in ROWS])
    for order in (("a", "b"), ("b", "a")):
        found = load([tmp_path / name for name in order]).results
        assert list(found["executed_flops"]) == [5e12] * len(ROWS)
    synthetic.write(tmp_path / "c", [row | {"executed_flops": 6e12} for row in ROWS])
    with pytest.raises(InputError, match=r"has executed_flops 6000000000000\.0, but 5000000000000\.0 in"):
        load([tmp_path / "b", tmp_path / "c"])


def test_a_million_columns_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("results.csv", "traces.csv"):
        (tmp_path / "results.csv").write_text(",".join(ROWS[0]) + "\n")
        (tmp_path / name).write_text("run_id" + ",seed" * 1_000_000 + "\n")
        with pytest.raises(InputError, match="row 1: it has 65536 bytes or more: not a table of this schema version"):
            load([tmp_path])
