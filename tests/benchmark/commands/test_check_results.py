"""`check`: results that somebody sent pass only if everything agrees, and then build beside ours."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grids import Bench, Finished
from one_cell import Runner, make_spec

from analysis.build import build
from analysis.data.read import load
from benchmark import results, suites
from benchmark.results import COLUMNS, LAYERS, TRACES, write_csv

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results"
TABLES = {"results.csv": COLUMNS, "traces.csv": TRACES, "layers.csv": LAYERS}
STATIC, SET, HALF_STATIC = "a6eac6981600", "085ea7d40ea4", "909b3320dd30"
DENSE, DENSE_OF_SEED_1 = "909810bd7d64", "05e4e5737ca3"
Edit = Callable[[Path], Any]
Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def part(to: Path, *run_ids: str) -> Path:
    """The committed rows of some cells, with their traces and layers, as somebody would send them."""
    to.mkdir()
    for name, columns in TABLES.items():
        rows = [row for folder in ("mnist-baselines", "mnist-lenet-5-caffe") for row in read(COMMITTED / folder / name)]
        chosen = [dict.fromkeys(columns, "") | row for row in rows if row["run_id"] in run_ids]
        write_csv(to / name, columns, chosen)
    return to


@pytest.fixture(autouse=True)
def two_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """To expand all suites takes seconds; tests/test_publishing_page.py does that."""
    monkeypatch.setattr(suites, "NAMES", ("field", "mnist"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells: static at two densities, set, and a dense one; seed 0."""
    return part(tmp_path_factory.mktemp("clean") / "sent", STATIC, SET, HALF_STATIC, DENSE)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cell of set, and seed 1 of the dense one."""
    return part(tmp_path_factory.mktemp("ours") / "ours", SET, DENSE_OF_SEED_1)


@pytest.fixture
def sent(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "sent")
    return tmp_path / "sent"


def checked(bench: Bench, folder: Path, ours: Path) -> Finished:
    """What the command prints. It must not write into the folder."""
    before = content(folder)
    finished = bench("check", folder, "--beside", ours)
    assert content(folder) == before
    assert "Traceback" not in finished.stdout + finished.stderr
    assert "\x1b" not in finished.stdout
    return finished


def content(folder: Path) -> dict[str, Any]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 2**30]
    return {str(path): (path.lstat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_an_honest_folder_passes_and_builds_beside_ours(bench: Bench, sent: Path, ours: Path, tmp_path: Path) -> None:
    finished = checked(bench, sent, ours)
    assert finished.code == 0, finished.stdout
    last = f"{sent}: tables: 1; cells: 4 of suite mnist, 3 new, 1 equal to ours; no problem"
    assert finished.stdout.splitlines() == [last]
    build(load([ours, sent]), tmp_path / "out", only=["table1"])
    assert len(load([ours, sent]).results) == 5
    (sent / "traces.csv").unlink()
    assert checked(bench, sent, ours).code == 0
    load([sent, ours])
    load([ours, sent])


def cell(run_id: str, /, **values: str) -> Edit:
    """Other values in the row of a cell."""

    def edit(sent: Path) -> None:
        rows = read(sent / "results.csv")
        next(row for row in rows if row["run_id"] == run_id).update(values)
        write_csv(sent / "results.csv", COLUMNS, rows)

    return edit


def other_spec(run_id: str, section: str, field: str, value: Any, **columns: str) -> Edit:
    """Another spec, with the run id that follows from it everywhere."""

    def edit(sent: Path) -> None:
        rows = {name: read(sent / name) for name in TABLES}
        row = next(row for row in rows["results.csv"] if row["run_id"] == run_id)
        spec = json.loads(row["spec"])
        (spec[section] if section else spec)[field] = value
        row.update(columns, spec=json.dumps(spec, sort_keys=True, separators=(",", ":")))
        new = hashlib.sha256(row["spec"].encode()).hexdigest()[:12]
        for name, columns_of in TABLES.items():
            for each in rows[name]:
                each["run_id"] = new if each["run_id"] == run_id else each["run_id"]
            write_csv(sent / name, columns_of, rows[name])

    return edit


def replaced(name: str, old: str, new: str) -> Edit:
    def edit(sent: Path) -> None:
        text = (sent / name).read_text()
        assert old in text
        (sent / name).write_text(text.replace(old, new, 1))

    return edit


def without_rows(name: str) -> Edit:
    return lambda sent: (sent / name).write_text((sent / name).read_text().partition("\n")[0] + "\n")


def instead(name: str, make: Edit) -> Edit:
    def edit(sent: Path) -> None:
        (sent / name).unlink()
        make(sent / name)

    return edit


def rows_of(name: str, change: Callable[[Rows], Rows]) -> Edit:
    return lambda sent: write_csv(sent / name, TABLES[name], change(read(sent / name)))


def linked(path: Path) -> None:
    path.with_name("elsewhere").write_text("run_id\n")
    path.symlink_to(path.with_name("elsewhere"))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**42)


FIRST = r"sent/results\.csv, row 2: cell a6eac6981600: "
TAMPERED: dict[str, tuple[Edit, str]] = {
    "accuracy": (cell(STATIC, test_accuracy="92.7"), FIRST + r"test_accuracy is 92.7, but traces.csv says 92.71"),
    "accuracy above 100": (cell(STATIC, best_test_accuracy="120"), FIRST + r"best_test_accuracy is 120, which is not"),
    "accuracy above the best": (cell(STATIC, best_test_accuracy="90"), FIRST + "test_accuracy is 92.71, above best"),
    "density": (cell(STATIC, density="0.03"), FIRST + "density is 0.03, but its layers keep 6602 of 266200 weights"),
    "density of 0": (cell(STATIC, min_density="0"), FIRST + r"min_density is 0\.0, but traces\.csv says 0\.0"),
    "a density below 0": (cell(STATIC, min_density="-1"), FIRST + r"min_density is -1, which is not in \[0, 1\]"),
    "a promised density": (
        other_spec(STATIC, "", "density", 0.02, density_target="0.02"),
        r"density is 0\.0248009, but static promises its density_target, 0\.02",
    ),
    "a sparse dense cell": (cell(DENSE, density="0.5"), "density is 0.5, but dense keeps every weight"),
    "a number that is none": (cell(STATIC, weight_max="1_0"), FIRST + "weight_max: '1_0' is no finite number"),
    "an infinity": (cell(STATIC, weight_max="inf"), FIRST + "weight_max: 'inf' is no finite number"),
    "nan": (cell(STATIC, test_accuracy="nan"), FIRST + "test_accuracy of a done cell is empty"),
    "no seconds": (cell(STATIC, train_seconds="0"), FIRST + "train_seconds is 0: it must be above 0"),
    "fewer epochs": (cell(STATIC, epochs="2"), FIRST + "epochs is 2, but its spec trains 20"),
    "training FLOPs of a dense cell": (cell(DENSE, train_flops="100"), "train_flops is 100, no multiple of 3 x"),
    "FLOPs of a dense cell": (
        cell(DENSE, inference_flops="2293000", train_flops="8254800000000"),
        r"train_flops is 8254800000000, not the \d+ of another seed in \S+ours/results\.csv",
    ),
    "FLOPs of the kept weights": (cell(STATIC, inference_flops="9"), FIRST + "inference_flops is 9, but the kept"),
    "more than dense FLOPs": (cell(STATIC, executed_flops="9"), FIRST + r"train_flops is \S+, above executed_flops"),
    "a column of the spec": (cell(STATIC, method="set"), FIRST + "method is 'set', but its spec says 'static'"),
    "a spec": (replaced("results.csv", '""nesterov"":false', '""nesterov"":true'), FIRST + "spec hashes to "),
    "a run id": (cell(STATIC, run_id=SET), r"row 2: cell 085ea7d40ea4: spec hashes to a6eac6981600"),
    "a path for a run id": (cell(STATIC, run_id="../../x"), r"row 2: cell ../../x: run_id is '../../x': it must be"),
    "an escape sequence": (cell(STATIC, device="\x1b[2J"), FIRST + r"device has characters that do not print, '\\x1b"),
    "a status": (cell(STATIC, status="finished"), FIRST + "status is 'finished': it must be one of pending,"),
    "a commit": (cell(STATIC, commit="$(touch x)"), FIRST + r"commit is '\$\(touch x\)': it must be"),
    "a protocol": (cell(STATIC, protocol="mine"), FIRST + "protocol is mine, but our suites have this cell in"),
    "a method": (other_spec(SET, "method", "name", "static", method="static"), "its spec is not one of method static"),
    "a hyperparameter less": (
        lambda sent: (
            replaced("results.csv", '""drop_fraction"":0.3,', "")(sent),
            other_spec(SET, "", "seed", 0)(sent),
        ),
        "its spec is not one of method set, version 1, which has the fields",
    ),
    "a row twice": (rows_of("results.csv", lambda rows: [*rows, rows[0]]), "row 6: cell a6eac6981600: the cell is in"),
    "an unknown column": (replaced("results.csv", "weight_max", "weight"), "unknown or repeated column 'weight'"),
    "no column": (
        replaced("results.csv", ",spec\n", ",\n"),
        "results.csv: is no table of ours: it has no column 'spec'",
    ),
    "a short row": (lambda sent: (sent / "results.csv").open("a").write("x,y\n"), "results.csv: line 6: it does not"),
    "a cut table": (lambda sent: os.truncate(sent / "traces.csv", 1000), "traces.csv"),
    "a record twice": (rows_of("traces.csv", lambda rows: [*rows, rows[0]]), "the record is in a row above too"),
    "a record less": (
        rows_of("traces.csv", lambda rows: [row for row in rows if row["epoch"] != "3"]),
        FIRST + "epochs is 20, but traces.csv has test_accuracy of 19 epochs",
    ),
    "a text for a record": (rows_of("traces.csv", lambda rows: [rows[0] | {"value": "x"}]), "traces.csv, row 2: value"),
    "kept weights": (rows_of("layers.csv", lambda rows: [rows[0] | {"kept": "1e9"}]), r"kept is 1e\+09 of 235200"),
    "not UTF-8": (instead("results.csv", lambda path: path.write_bytes(b"\xff\xfe")), "cannot be read as a table"),
    "an empty file": (instead("results.csv", lambda path: path.touch()), "results.csv: is no table of ours"),
    "a line without an end": (instead("results.csv", lambda path: path.write_text("x" * 2**24)), "8388608 characters"),
    "a link": (instead("layers.csv", linked), r"layers\.csv: is a link, which may lead anywhere"),
    "a pipe": (instead("layers.csv", os.mkfifo), r"layers\.csv: is no regular file and is not opened"),
    "a folder": (instead("layers.csv", lambda path: path.mkdir()), r"layers\.csv: is a folder: remove it"),
    "terabytes": (instead("traces.csv", sparse), r"traces\.csv: claims 4398046511104 bytes and is not opened"),
    "nothing": (lambda sent: (sent / "results.csv").unlink(), "sent: holds no results.csv"),
    "other numbers than ours": (
        cell(SET, weight_max="2.5"),
        r"cell 085ea7d40ea4: weight_max is 2\.5 instead of \S+, unlike in \S+ours/results\.csv, on the same device",
    ),
    "other records than ours": (
        replaced("traces.csv", f"{SET},1,,train_loss,", f"{SET},1,,train_loss,1"),
        r"cell 085ea7d40ea4: traces\.csv has other records, unlike in \S+ours/results\.csv",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_named_by_file_and_row(name: str, bench: Bench, sent: Path, ours: Path) -> None:
    edit, expected = TAMPERED[name]
    edit(sent)
    finished = checked(bench, sent, ours)
    assert finished.code == 3, finished.stdout
    assert re.search(expected, finished.stdout), finished.stdout
    *said, last = finished.stdout.splitlines()
    assert all(line.startswith((str(sent), "remark: ")) and ": " in line for line in said)
    problems = [line for line in said if not line.startswith("remark: ")]
    assert last.endswith(f"; {len(problems)} problem{'s' if len(problems) > 1 else ''}")


def test_a_network_that_prunes_everything_is_no_problem(bench: Bench) -> None:
    """DST without its reset at a large alpha, as in some of the committed rows."""
    rows = read(COMMITTED / "mnist-resets" / "results.csv")
    assert any(float(row["density"]) == 0 for row in rows)
    finished = bench("check", str(COMMITTED / "mnist-resets"))
    assert finished.code == 0, finished.stdout
    assert finished.stdout.rstrip().endswith("no problem")


def test_cells_without_records_are_remarked(bench: Bench, sent: Path, ours: Path) -> None:
    before = checked(bench, sent, ours)
    assert "no records in traces.csv" not in before.stdout
    (sent / "traces.csv").unlink()
    finished = checked(bench, sent, ours)
    assert finished.code == 0, finished.stdout
    assert "have no records in traces.csv: accuracy and density are not compared" in " ".join(finished.stdout.split())


def test_cells_of_their_own_and_other_machines_are_remarked(bench: Bench, sent: Path, ours: Path) -> None:
    other_spec(HALF_STATIC, "optimizer", "lr", 0.3)(sent)
    cell(STATIC, commit="c0ffee123-dirty")(sent)
    finished = checked(bench, sent, ours)
    assert finished.code == 0, finished.stdout
    assert "cells: 3 of suite mnist, 1 own, 3 new, 1 equal to ours; no problem" in finished.stdout
    assert "suite mnist has no such cell here, so the cell counts as own" in finished.stdout
    assert f"cell {STATIC}: was trained with uncommitted changes" in finished.stdout
    load([ours, sent])
    cell(SET, device="another", weight_max="3")(sent)
    finished = checked(bench, sent, ours)
    assert finished.code == 3
    assert "on Intel(R) Xeon(R) Processor, not another: send it without this row" in finished.stdout


def test_a_document_has_the_same_in_parts(bench: Bench, sent: Path, ours: Path) -> None:
    cell(STATIC, train_seconds="-1")(sent)
    finished = bench("check", sent, "--beside", ours, "--json")
    assert finished.code == 3
    (problem,) = finished.json["problems"]
    assert problem == {
        "file": str(sent / "results.csv"), "row": 2, "run_id": STATIC,
        "text": "train_seconds is -1: it must be above 0: export the cell again from its run folder",
    }  # fmt: skip
    assert finished.json["counts"] == {"of suite mnist": 3, "new": 2, "equal to ours": 1}
    refused = bench("check", sent / "nothing", "--json")
    assert (refused.code, "is no folder" in refused.json["error"]) == (2, True)


def sums(folder: Path) -> None:
    """As a sender makes them."""
    names = sorted(path.name for path in folder.iterdir())
    made = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(made.stdout)


WITH_SUMS: dict[str, tuple[Edit, str]] = {
    "a changed file": (lambda sent: (sent / "notes.txt").write_text("x"), r"notes\.txt: is not the file of SHA256SUMS"),
    "one file more": (lambda sent: (sent / "more").touch(), r"sent/more: is not in SHA256SUMS"),
    "one file less": (lambda sent: (sent / "notes.txt").unlink(), r"SHA256SUMS, row 2: 'notes\.txt' is not in the"),
    "a path outside": (
        replaced("SHA256SUMS", "notes.txt", "../../../etc/passwd"),
        r"SHA256SUMS, row 2: '\.\./\.\./\.\./etc/passwd' is not in the folder",
    ),
    "a line that is none": (replaced("SHA256SUMS", "  notes", "notes"), "SHA256SUMS, row 2: '.* is no checksum"),
    "not UTF-8": (lambda sent: (sent / "SHA256SUMS").write_bytes(b"\xff"), "SHA256SUMS: cannot be read"),
}


@pytest.mark.parametrize("name", WITH_SUMS)
def test_checksums_are_of_every_file(name: str, bench: Bench, sent: Path, ours: Path) -> None:
    (sent / "notes.txt").write_text("what I did")
    sums(sent)
    assert checked(bench, sent, ours).code == 0
    edit, expected = WITH_SUMS[name]
    edit(sent)
    finished = checked(bench, sent, ours)
    assert finished.code == 3
    assert re.search(expected, finished.stdout), finished.stdout


def test_exhibits_are_those_of_the_rows(bench: Bench, sent: Path, ours: Path) -> None:
    from analysis.output.exhibit import Written
    from analysis.output.manifest import write_manifest

    out = sent / "exhibits"
    out.mkdir()
    (out / "index.html").write_text("page")
    written = [Written(name="x", files=(), run_ids=(STATIC, SET))]
    write_manifest(load([sent]), written, [out / "index.html"], out)
    assert checked(bench, sent, ours).code == 0
    (out / "index.html").write_text("another")
    cell(STATIC, train_seconds="12")(sent)
    said = checked(bench, sent, ours).stdout
    assert "exhibits/manifest.json: 'index.html' is not the file that was built" in said
    assert f"exhibits/manifest.json: the exhibits were built from another row of '{STATIC}'" in said
    (out / "manifest.json").write_text("[" * 100_000)
    assert "manifest.json: is damaged (" in checked(bench, sent, ours).stdout


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_nothing_is_unpickled(
    bench: Bench, sent: Path, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("results.parquet", "results.pkl", "model.pt", "sitecustomize.py"):
        (sent / name).write_bytes(pickle.dumps(Bomb()))
    assert checked(bench, sent, ours).code == 0
    assert not (tmp_path / "exploded").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A run folder with one finished cell."""
    out = tmp_path_factory.mktemp("trained") / "runs"
    results.prepare(out)
    results.remember(out, "mine", (), [make_spec(epochs=2)])
    Runner(out, make_spec(epochs=2)).run()
    results.write_tables(out)
    return out


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda cell: (cell / "metrics.jsonl").write_text("{}\n"), r"metrics\.jsonl: is not the one of its result"),
        (
            lambda cell: (cell / "result.json").write_text("{}"),
            r"result\.json: result\.json is damaged: train the cell",
        ),
        (lambda cell: (cell / "metrics.jsonl").unlink(), r"metrics\.jsonl: is not the one of its result"),
        (lambda cell: (cell / "result.json").unlink(), r"results\.csv: cell \w{12} is done, but has no result here"),
        (
            lambda cell: (cell.parents[1] / "suites/mine.json").unlink(),
            r"1 cell has a result in .*, but is in no suite's list, .*\n.*, 1 new; 1 problem",
        ),
        (without_rows("../../results.csv"), r"results\.csv: cell \w{12} is missing: export the cell again"),
        (replaced("../../results.csv", ",done,2,", ",done,3,"), "is not as its result.json has it"),
        (replaced("../../run-folder.json", "1", "7"), "has schema version 7"),
        (replaced("../../suites/mine.json", '"seed": 0', '"seed": 1'), "its spec is another cell's"),
        (lambda cell: (cell.parents[1] / "results.csv").unlink(), "holds no results.csv"),
    ],
)
def test_a_run_folder_is_checked_with_its_cells(
    edit: Edit, expected: str, bench: Bench, trained: Path, ours: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out, symlinks=True)
    honest = checked(bench, out, ours)
    assert honest.code == 0, honest.stdout
    assert honest.stdout.endswith(f"{out}: tables: 1; cells: 1 own, 1 new; no problem\n")
    edit(next((out / "cells").iterdir()))
    finished = checked(bench, out, ours)
    assert finished.code == 3
    assert re.search(expected, finished.stdout), finished.stdout
