"""Standard streams of every kind: other encodings, narrow screens, readers that leave, full disks, JSON documents."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grids import MIXED, Bench, Finished, Grid, cells, finish, start

ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
PRINTS = MIXED.replace("def suite():", 'print("loading ± é")\n\n\ndef suite():\n    print("in suite() ± é")')
READING = [["status"], ["export"], ["list", "suites"], ["--help"]]


@pytest.fixture(params=ENCODINGS, ids=str)
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


def with_output(output: int, *arguments: str | Path, **options: Any) -> Finished:
    """A command whose standard output is this descriptor, which is closed afterwards."""
    process = start(*arguments, stdout=output, **options)
    os.close(output)
    return finish(process)


@pytest.mark.usefixtures("encoding")
def test_a_terminal_of_another_encoding_shows_what_it_can(grid: Grid, tmp_path: Path) -> None:
    copy = grid.copy(tmp_path / "rünsé")
    process = start("status", "--out", copy.out, errors="replace")
    finished = finish(process)
    assert (finished.code, finished.stderr) == (0, "")
    assert "5 cells" in finished.stdout
    assert re.search(r"\d . standard deviation|. standard deviation over seeds", finished.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding", [ENCODINGS[0], pytest.param(ENCODINGS[-1], marks=pytest.mark.rare)], indirect=True, ids=str
)
@pytest.mark.usefixtures("encoding")
def test_a_run_and_its_analysis_end_well_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PRINTS, encoding="utf-8")
    command = (
        "run",
        "--suite",
        tmp_path / "own.py",
        "--out",
        tmp_path / "runs",
        "--no-mlflow",
        "--where",
        "method=dst",
    )
    finished = finish(start(*command, errors="replace"))
    assert (finished.code, finished.stderr) == (0, "")
    built = ("build", "--results", tmp_path / "runs", "--out", tmp_path / "exhibits")
    finished = finish(start(*built, errors="replace", package="analysis"))
    assert (finished.code, finished.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["40", "20"])
def test_a_narrow_screen_cuts_no_number(
    columns: str, bench: Bench, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = bench("status", "--out", grid.out).stdout
    monkeypatch.setenv("COLUMNS", columns)
    narrow = bench("status", "--out", grid.out).stdout
    number = r"\d+\.\d\d ± |\d+\.\d\d(?=  |\n)"
    assert re.findall(number, narrow) == re.findall(number, wide) != []
    assert {"1/1", "0.001", "paper"} <= set(re.split(r"[ \n]+", narrow))
    assert "lenet-300-100" in narrow
    assert "…" not in narrow


@pytest.mark.parametrize("columns", ["0", "00", "²", "9" * 5000], ids=["0", "00", "square", "long"])
def test_a_width_that_is_none_counts_as_unknown(columns: str, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = finish(start("status", "--out", grid.out))
    monkeypatch.setenv("COLUMNS", columns)
    assert finish(start("status", "--out", grid.out)) == expected


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_reader_that_leaves_ends_the_command_quietly(arguments: list[str], grid: Grid, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    out = ["--out", grid.copy(tmp_path / "runs").out] if arguments[0] in ("status", "export") else []
    finished = with_output(writing, *arguments, *out)
    assert (finished.code, finished.stderr) == (141, "")


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_line(arguments: list[str], grid: Grid, tmp_path: Path) -> None:
    out = ["--out", grid.copy(tmp_path / "runs").out] if arguments[0] in ("status", "export") else []
    finished = with_output(os.open("/dev/full", os.O_WRONLY), *arguments, *out)
    assert finished.code == 1
    assert finished.stderr == "error: the output cannot be written: No space left on device\n"


def test_a_reader_that_leaves_while_a_suite_prints_is_no_error_of_the_suite(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("print('x' * 100_000, flush=True)\n" + MIXED)
    reading, writing = os.pipe()
    os.close(reading)
    finished = with_output(writing, "plan", "--suite", tmp_path / "own.py", "--out", tmp_path / "runs")
    assert (finished.code, finished.stderr) == (141, "")


@pytest.mark.slow
def test_a_run_whose_reader_leaves_goes_on_when_it_is_run_again(grid: Grid, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = ("run", "--suite", grid.suite, "--where", "method=dst", "--out", tmp_path / "runs", "--no-mlflow")
    finished = with_output(writing, *command)
    assert (finished.code, finished.stderr) == (141, "")
    assert finish(start(*command)).code == 0


def test_the_analysis_treats_its_output_alike(grid: Grid) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = ("compare", grid.out, grid.out)
    finished = with_output(writing, *command, package="analysis")
    assert (finished.code, finished.stderr) == (141, "")
    finished = with_output(os.open("/dev/full", os.O_WRONLY), *command, package="analysis")
    assert finished.code == 1
    assert finished.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run", "--sweet"], "No such option: --sweet"),
        (["run", "--workers", "0"], "Invalid value for '--workers': "),
        (["show"], "Missing argument"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["data"], "No such option: --json"),
        (["list", "cats"], "unknown list 'cats'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_of_a_usage_error_is_one_document(arguments: list[str], error: str, bench: Bench) -> None:
    finished = bench(*arguments, "--json")
    assert (finished.code, finished.json["exit_code"]) == (2, 2)
    assert error in finished.json["error"]
    assert error in finished.stderr


def test_a_usage_error_of_the_analysis_is_a_document_too(grid: Grid) -> None:
    finished = finish(start("compare", grid.out, "--json", package="analysis"))
    assert (finished.code, finished.json["exit_code"]) == (2, 2)
    assert "Missing argument" in finished.json["error"]


@pytest.mark.parametrize("verb", [["plan"], ["run", "--dry-run"], ["run"]], ids=" ".join)
def test_suites_that_print_do_not_spoil_the_json(verb: list[str], bench: Bench, grid: Grid, tmp_path: Path) -> None:
    suite = tmp_path / "mixed.py"
    suite.write_text(PRINTS, encoding="utf-8")
    finished = bench(*verb, "--suite", suite, "--out", grid.copy(tmp_path / "runs").out, "--json")
    assert finished.json
    assert "loading ± é" in finished.stderr
    assert "in suite() ± é" in finished.stderr


def test_without_json_what_suites_print_is_shown(bench: Callable[..., Finished], grid: Grid, tmp_path: Path) -> None:
    suite = tmp_path / "mixed.py"
    suite.write_text(PRINTS, encoding="utf-8")
    assert "loading ± é" in bench("plan", "--suite", suite, "--out", grid.copy(tmp_path / "runs").out).stdout
    assert len(cells(grid.out)) == 5
