"""The command line: one clear line for a mistake, the documented exit codes, nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grids import HOOK_BROKE, MIXED, Bench, Grid, attempts, rows

from benchmark.commands import selection
from benchmark.data import mnist
from benchmark.spec import SpecError

LENET = ("--suite", "mnist", "--where", "model=lenet-300-100", "--where", "method=dense", "--seeds", "0")


# --- names, fields and values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--suite", "mnits"], ["unknown suite 'mnits'", "did you mean 'mnist'?", "digits"]),
        (["--suite", "nowhere.py"], ["nowhere.py does not exist"]),
        (["--set", "model.name=lenet-300-10"], ["unknown model", "did you mean 'lenet-300-100'?", "lstm-b"]),
        (["--set", "data.name=digit"], ["unknown data set 'digit'", "did you mean 'digits'?"]),
        (["--set", "optimizer.epoch=1"], ["unknown field 'optimizer.epoch'", "did you mean 'optimizer.epochs'?"]),
        (["--set", "epochs=1"], ["unknown field 'epochs'", "optimizer.epochs"]),
        (["--set", "method.alhpa=1"], ["no cell's method has 'alhpa'", "did you mean 'alpha'?"]),
        (["--set", "method.name=dst"], ["no cell's method has 'name'"]),
        (
            ["--set", "optimizer.epochs=1", "--set", "optimizer.epochs=3"],
            ["--set optimizer.epochs is given twice: give each field one value"],
        ),
        (["--set", "optimizer.epochs"], ["--set optimizer.epochs: write FIELD=value"]),
        (["--set", "optimizer.epochs=many"], ["optimizer.epochs is 'many': it must be int"]),
        (["--set", "optimizer.lr=Infinity"], ["optimizer.lr is inf: it must be finite"]),
        (["--set", "method.alpha=-1"], ["alpha is -1", "it must be 0 or more"]),
        (["--set", "method.alpha=NaN"], ["alpha is nan"]),
        (["--set", "density=0"], ["density is 0", "it must lie in (0, 1]"]),
        (["--set", "density=1.5"], ["density is 1.5", "it must lie in (0, 1]"]),
        (["--where", "metod=dst"], ["unknown field 'metod'", "did you mean 'method' or "]),
        (["--where", "method=dts"], ["--where method=dts: no cell has that value", "dense", "dst"]),
        (
            ["--where", "method=dst", "--where", "alpha=nan"],
            ["no cell is left by --where method=dst --where alpha=nan"],
        ),
        (["--where", "method"], ["--where method: write FIELD=value"]),
        (["--seeds", "1-x"], ["--seeds 1-x: write numbers and ranges"]),
        (["--seeds", "0-99999999999"], ["--seeds 0-99999999999: give at most 10000 seeds"]),
        (["--seeds", "0,1" + "0" * 400], ["seed is a number of 1329 bits: it must fit in 64"]),
        (["--set", "optimizer.lr=" + "1" * 400], ["--set optimizer.lr: the number does not fit in 64 bits"]),
        (["--set", "optimizer.lr=" + "1" * 5000], ["optimizer.lr is '111", "…"]),
        (["--set", "optimizer.lr=1e400"], ["optimizer.lr is inf: it must be finite"]),
        (["--set", "method.alpha=" + "1" * 400], ["--set method.alpha: the number does not fit in 64 bits"]),
        (["--set", "model.widths=[[10, 20], 30]"], ["--set model.widths: give a number, a text or a list of these"]),
        (["--set", "model.widths=" + "[" * 10_000], ["--set model.widths: give a number, a text or a list of these"]),
        (["--set", 'data.shape={"a": 1}'], ["--set data.shape: give a number, a text or a list of these"]),
        (["--set", "optimizer.schedule=step"], ["optimizer.schedule=step needs optimizer.milestones"]),
        (["--workers", "1000000000"], ["Invalid value for '--workers'"]),
        (["--processes-per-cell", "1000000000"], ["Invalid value for '--processes-per-cell'"]),
        (["--launcher", "slrum"], ["unknown launcher 'slrum'", "valid: local"]),
        (["--device", "gpu"], ["unknown device 'gpu'", "auto, cpu, cuda"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_a_wrong_name_or_value_is_one_line_with_the_valid_ones(
    arguments: list[str], fragments: list[str], bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    finished = bench("run", "--suite", grid.suite, *arguments, "--out", tmp_path / "runs")
    assert finished.code == 2
    assert finished.stdout == ""
    assert all(fragment in finished.error for fragment in fragments), finished.error
    assert not (tmp_path / "runs" / "cells").exists()


def test_a_name_whose_file_lies_here_suggests_the_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unknown = bench("plan", "--suite", "mine")
    assert unknown.error.endswith("; or give a FILE.py")
    Path("mine.py").touch()
    assert bench("plan", "--suite", "mine").error == "error: unknown suite 'mine': did you mean the file mine.py?"


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--sweet"], ["run", "--workers", "0"], ["list", "cats"]])
def test_a_wrong_verb_or_option_is_a_usage_error(arguments: list[str], bench: Bench) -> None:
    finished = bench(*arguments)
    assert finished.code == 2
    assert "rror" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_usage_error_is_one_line_that_says_where_to_read_more(bench: Bench) -> None:
    assert bench("run", "--sweet").error.endswith(" run --help' lists what there is")


def test_a_schedule_and_its_milestones_are_set_together_in_any_order(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    changes = ["optimizer.schedule=step", "optimizer.milestones=[1]"]
    command = ("plan", "--suite", grid.suite, "--out", tmp_path / "runs", "--where", "method=dst", "--json")
    (one,) = bench(*command, "--set", changes[0], "--set", changes[1]).json["to_run"]
    (other,) = bench(*command, "--set", changes[1], "--set", changes[0]).json["to_run"]
    assert one["run_id"] == other["run_id"]
    assert one["departs"] == [
        "optimizer.schedule=step (suite: constant)",
        "optimizer.milestones=(1,) (suite: None)",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--suite", "gap", "--seeds", "0-9999"],
        ["speed", "--threads", "1000000000"],
        ["sync", "--patience", "nan"],
        ["sync", "--patience", "inf"],
    ],
)
def test_a_number_beyond_all_use_is_one_line(arguments: list[str], bench: Bench) -> None:
    finished = bench(*arguments)
    assert finished.code == 2
    assert arguments[-2] in finished.error


def test_a_density_that_no_method_keeps_cannot_be_set(bench: Bench, tmp_path: Path) -> None:
    finished = bench("plan", "--suite", "estimators", "--set", "density=0.5", "--out", tmp_path / "runs")
    assert (finished.code, finished.error) == (2, "error: no cell's method keeps a density that could be set")


@pytest.mark.parametrize(("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("0,2,5-7,6", [0, 2, 5, 6, 7])])
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert selection.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "0,,1", "1.5", "2-1", "0,5-3", "5-3,0"])
def test_seeds_that_are_no_numbers_are_an_error(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--seeds"):
        selection.parse_seeds(text)


# --- data and output folders ---------------------------------------------------------------------------


def test_missing_data_ends_the_command_before_any_training(bench: Bench, tmp_path: Path) -> None:
    finished = bench("run", *LENET, "--data-dir", tmp_path, "--out", tmp_path / "runs")
    name = "train-images-idx3-ubyte.gz"
    assert finished.code == 3
    assert all(part in finished.error for part in (str(tmp_path), name, mnist.SHA256[name], "data fetch mnist"))
    assert not (tmp_path / "runs" / "cells").exists()


def test_corrupt_data_is_named_with_its_checksums(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.parent.mkdir()
    path.write_bytes(b"no images")
    finished = bench("run", *LENET, "--data-dir", tmp_path, "--out", tmp_path / "runs")
    assert finished.code == 3
    assert f"{path} is corrupt: expected SHA-256 {mnist.SHA256[path.name]}, found " in finished.error
    assert not (tmp_path / "runs" / "cells").exists()


@pytest.mark.data
def test_one_flipped_bit_in_real_data_is_found(bench: Bench, data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir / "mnist", tmp_path / "mnist")
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.chmod(0o644)
    content = bytearray(labels.read_bytes())
    content[2000] ^= 1
    labels.write_bytes(content)
    finished = bench("run", *LENET, "--data-dir", tmp_path, "--out", tmp_path / "runs")
    assert finished.code == 3
    assert f"{labels} is corrupt: expected SHA-256 {mnist.SHA256[labels.name]}" in finished.error


def test_an_output_folder_that_is_a_file_is_refused(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "runs"):
        finished = bench("run", "--suite", grid.suite, "--out", out)
        assert finished.code == 2
        assert f"--out {out} cannot be written" in finished.error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to, not by root either."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"root writes everywhere, and nothing can be mounted read-only here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_output_folder_that_cannot_be_written_is_refused(bench: Bench, grid: Grid, read_only: Path) -> None:
    for out in (read_only, read_only / "runs"):
        finished = bench("run", "--suite", grid.suite, "--out", out)
        assert finished.code == 2
        assert f"--out {out} cannot be written" in finished.error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("thesis.tex", "all of it", "is not a run folder and not empty"),
        ("run-folder.json", '{"schema": 99}', "has schema version 99, this program writes 1"),
    ],
)
def test_a_foreign_folder_or_one_of_another_schema_is_refused_and_left_alone(
    name: str, content: str, message: str, bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    (out / name).write_text(content)
    for verb in ("run", "plan"):
        finished = bench(verb, "--suite", grid.suite, "--out", out)
        assert finished.code == 2
        assert f"--out {out} {message}: choose another folder" in finished.error
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, content)]


@pytest.mark.parametrize("content", ["", "[]", "{"])
@pytest.mark.parametrize("verb", [["run"], ["plan"], ["status"], ["export"], ["show", "abc"]])
def test_a_damaged_marker_is_named_and_the_folder_is_left_alone(
    verb: list[str], content: str, bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    marker = tmp_path / "runs" / "run-folder.json"
    marker.parent.mkdir()
    marker.write_text(content)
    suite = ["--suite", grid.suite] if verb[0] in ("run", "plan") else []
    finished = bench(*verb, *suite, "--out", marker.parent)
    assert finished.code == 2
    assert finished.error.startswith(f"error: {marker} is damaged (")
    assert finished.error.endswith('): choose another folder, or mend the file, which holds {"schema": 1}')
    assert [(path.name, path.read_text()) for path in marker.parent.iterdir()] == [(marker.name, content)]


@pytest.mark.parametrize("verb", [["status"], ["export"], ["show", "abc"]])
def test_reading_where_there_is_no_run_folder_says_so(verb: list[str], bench: Bench, tmp_path: Path) -> None:
    finished = bench(*verb, "--out", tmp_path / "nothing")
    assert finished.code == 2
    assert "is no run folder: give --out, or make one with 'python -m benchmark run'" in finished.error
    assert not (tmp_path / "nothing").exists()


def test_show_wants_the_id_of_one_cell(bench: Bench, grid: Grid) -> None:
    for run_id, problem in (("zzz", "no cell has it"), ("", "5 cells begin with it")):
        finished = bench("show", run_id, "--out", grid.out)
        assert finished.code == 2
        assert f"run id '{run_id}': {problem}" in finished.error


# --- cells that end badly -------------------------------------------------------------------------------


def statuses(out: Path) -> list[str]:
    return sorted(row["status"] for row in rows(out).values())


def test_a_failed_and_a_diverged_cell_are_rows_and_the_others_go_on(grid: Grid) -> None:
    assert (grid.finished.code, grid.finished.stderr) == (1, "")
    assert statuses(grid.out) == ["diverged", "done", "done", "done", "failed"]
    assert f"broken protocol=paper seed=0: failed: {HOOK_BROKE}" in grid.finished.stdout
    assert "the loss or a weight is not finite after epoch 1 of dense: fc1.weight has" in grid.finished.stdout
    assert "Traceback" not in grid.finished.stdout


def test_the_traceback_of_a_failed_cell_is_kept_in_its_attempt(grid: Grid) -> None:
    (traceback,) = grid.out.glob("cells/*/attempts/0001/traceback.txt")
    assert 'raise RuntimeError("the hook broke' in traceback.read_text()


def test_the_same_command_again_trains_nothing(bench: Bench, grid: Grid) -> None:
    before = {path: path.stat().st_mtime_ns for path in grid.out.glob("cells/**/*")}
    logs = len(list((grid.out / "logs").iterdir()))
    finished = bench("run", "--suite", grid.suite, "--out", grid.out)
    assert finished.code == 1
    assert "5 cells, 5 of them ended before" in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in grid.out.glob("cells/**/*")} == before
    assert len(list((grid.out / "logs").iterdir())) == logs, "no worker was started"


def test_retry_failed_runs_failed_cells_alone(
    bench: Bench, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = grid.copy(tmp_path / "runs")
    monkeypatch.setenv("BENCH_TEST_MENDED", "1")
    finished = bench("run", "--suite", copy.suite, "--out", copy.out, "--retry-failed", "--json")
    assert (finished.code, finished.json["exit_code"]) == (1, 1)
    assert {cell["status"] for cell in finished.json["cells"]} == {"done", "diverged"}
    assert "5 cells, 4 of them ended before" in finished.stderr, "people read standard error"
    assert statuses(copy.out) == ["diverged", "done", "done", "done", "done"]
    assert sorted(map(len, attempts(copy.out).values())) == [1, 1, 1, 1, 2]


def test_other_seeds_are_no_departure_and_changed_fields_are(bench: Bench, grid: Grid) -> None:
    command = ("plan", "--suite", grid.suite, "--out", grid.out, "--where", "method=dst", "--json")
    (seeded,) = bench(*command, "--seeds", "5").json["to_run"]
    (changed,) = bench(*command, "--set", "method.alpha=2e-3").json["to_run"]
    unchanged = bench(*command, "--seeds", "0", "--set", "method.alpha=1e-3").json
    assert (seeded["label"], seeded["departs"]) == ("lenet-300-100 dst alpha=0.001 seed=5", [])
    assert changed["departs"] == ["method.alpha=0.002 (suite: 0.001)"]
    assert (unchanged["counts"], unchanged["to_run"]) == ({"done": 1}, [])


def test_a_change_need_not_fit_the_cells_that_are_left_out(bench: Bench, tmp_path: Path) -> None:
    command = (
        "plan",
        "--suite",
        "digits",
        "--out",
        tmp_path / "runs",
        "--set",
        "optimizer.micro_batch_size=16",
        "--json",
    )
    assert "must divide optimizer.batch_size, 100" in bench(*command).stderr
    chosen = bench(*command, "--where", "model=lenet-300-100", "--where", "optimizer.micro_batch_size=16").json
    assert {cell["label"].split()[0] for cell in chosen["to_run"]} == {"lenet-300-100"}


@pytest.mark.slow
def test_cells_that_workers_refuse_are_one_line_for_each_reason(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    command = ("run", "--suite", grid.suite, "--out", tmp_path / "runs", "--workers", "1", "--where", "method=static")
    finished = bench(*command, "--set", "precision=tf32")
    assert finished.code == 2
    assert "static density=0.1 tf32 seed=0: precision tf32 needs a GPU" in finished.error
    assert set(statuses(tmp_path / "runs")) == {"pending"}


@pytest.mark.slow
def test_a_density_that_keeps_too_little_fails_its_cell_only(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    command = ("run", "--suite", grid.suite, "--out", tmp_path / "runs", "--workers", "1")
    assert bench(*command, "--where", "method=dst,static", "--set", "density=0.000001").code == 1
    assert sorted(set(statuses(tmp_path / "runs"))) == ["done", "failed"]
    (error,) = [row["error"] for row in rows(tmp_path / "runs").values() if row["method"] == "static"]
    assert "static density=1e-06 seed=0: static: density 1e-06 keeps 0 weights, fewer than the 3 layers" in error


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_after_three(bench: Bench, tmp_path: Path) -> None:
    suite = tmp_path / "deadly.py"
    suite.write_text(MIXED.replace('raise RuntimeError("the hook broke\\nand has more to say")', "os._exit(9)"))
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--workers", "1")
    assert bench(*command).code == 1
    assert statuses(tmp_path / "runs") == ["diverged", "done", "done", "done", "failed"]
    (error,) = [row["error"] for row in rows(tmp_path / "runs").values() if row["method"] == "broken"]
    assert error.startswith("its worker died 3 times, last with exit code 9; see ")
    assert "5 of them ended before" in bench(*command).stdout
