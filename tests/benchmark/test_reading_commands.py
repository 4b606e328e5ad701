"""Commands that only read: plan, status, show, list, export; and JSON everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grids import HOOK_BROKE, MIXED, Bench, Grid, cells, finish, rows, start

import methods
from benchmark.run_folder.files import read_json, sealed, write_json
from methods import registry


def test_a_plan_counts_estimates_and_trains_nothing(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    planned = [
        bench("plan", "--suite", grid.suite, "--out", out, "--probe", "--json"),
        bench("run", "--suite", grid.suite, "--out", out, "--dry-run", "--json"),
    ]
    for finished in planned:
        assert (finished.code, finished.json["cells"], finished.json["counts"]) == (0, 5, {"pending": 5})
        assert len(finished.json["to_run"]) == 5
    assert planned[0].json["estimated_seconds"] > 0
    assert not out.exists()
    text = bench("plan", "--suite", grid.suite, "--out", out, "--probe").stdout
    assert "5 cells" in text
    assert "5 pending" in text
    assert "about " in text


def test_a_plan_knows_what_is_done_and_what_a_retry_would_run(bench: Bench, grid: Grid) -> None:
    command = ("run", "--suite", grid.suite, "--out", grid.out, "--dry-run", "--json")
    planned, retry = bench(*command).json, bench(*command, "--retry-failed").json
    assert planned["counts"] == {"done": 3, "failed": 1, "diverged": 1}
    assert planned["to_run"] == []
    assert [cell["label"] for cell in retry["to_run"]] == ["lenet-300-100 broken protocol=paper seed=0"]


WITHOUT_TORCH = """
import sys
from benchmark.cli import main
for arguments in {commands}:
    sys.argv = ["benchmark", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
heavy = {{"torch", "sklearn", "pandas", "pyarrow", "mlflow", "ray", "submitit", "seaborn", "matplotlib", "scipy"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_looking_around_imports_no_torch(grid: Grid) -> None:
    run_id = cells(grid.out)[0].name
    looks = [["--help"], *([verb, "--help"] for verb in ("run", "speed"))]
    looks += [["list", what] for what in ("suites", "methods", "models", "data")]
    looks += [["status", "--out", str(grid.out)], ["show", run_id, "--out", str(grid.out)]]
    code = WITHOUT_TORCH.format(commands=looks)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")
    assert run_id in done.stdout


# --- JSON -----------------------------------------------------------------------------------------------------


def one_document(text: str) -> Any:
    """The only JSON document of a text, strictly: no NaN, nothing before or after."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--suite", "{suite}", "--out", "{out}"],
        ["run", "--suite", "{suite}", "--out", "{out}", "--dry-run"],
        ["plan", "--suite", "{suite}", "--out", "{out}"],
        *(["list", what] for what in ("suites", "methods", "models", "data")),
        ["status", "--out", "{out}"],
        ["show", "{run_id}", "--out", "{out}"],
        ["export", "--out", "{out}"],
        ["data", "verify", "synthetic"],
        ["data", "fetch", "digits"],
        ["doctor", "--out", "{out}"],
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(arguments: list[str], bench: Bench, grid: Grid, tmp_path: Path) -> None:
    names = {"suite": grid.suite, "out": grid.copy(tmp_path / "runs").out, "run_id": cells(grid.out)[0].name}
    finished = bench(*(argument.format(**names) for argument in arguments), "--json")
    assert finished.code in (0, 1)
    assert one_document(finished.stdout)


def test_json_of_a_mistake_is_one_document_with_the_error_and_the_exit_code(bench: Bench, grid: Grid) -> None:
    finished = bench("status", "--out", grid.out, "--where", "method=dts", "--json")
    assert (finished.code, finished.json["exit_code"]) == (2, 2)
    assert "no cell has that value" in finished.json["error"]
    assert finished.json["error"] in finished.error


def test_status_counts_and_filters(bench: Bench, grid: Grid) -> None:
    everything = bench("status", "--out", grid.out, "--json").json
    assert everything["counts"] == {"diverged": 1, "failed": 1, "done": 3}
    some = bench("status", "--out", grid.out, "--where", "alpha=nan", "--where", "status=done", "--json").json
    assert [cell["method"] for cell in some["cells"]] == ["dense", "static"]
    text = bench("status", "--out", grid.out).stdout
    assert "5 cells; 1 diverged, 1 failed, 3 done" in text
    assert f"failed: {HOOK_BROKE}" in text


def test_show_has_all_of_one_cell(bench: Bench, grid: Grid) -> None:
    run_id = next(run_id for run_id, row in rows(grid.out).items() if row["method"] == "dst")
    shown = bench("show", run_id[:6], "--out", grid.out, "--json").json
    assert (shown["row"]["run_id"], shown["row"]["status"]) == (run_id, "done")
    assert shown["spec"]["method"]["alpha"] == 1e-3
    assert shown["environment"]["device"] == "cpu"
    assert shown["attempts"] == {"1": {"status": "done", "error": None}}
    assert shown["layers"]["fc1.weight"]["weights"] == 64 * 300
    text = bench("show", run_id, "--out", grid.out).stdout
    assert all(word in text for word in (run_id, "test_accuracy", "threads: 1", "fc1.weight"))


def test_texts_of_a_strangers_folder_are_shown_without_escape_sequences(
    bench: Bench, grid: Grid, tmp_path: Path
) -> None:
    copy, clear = grid.copy(tmp_path / "runs"), "\x1b[2J\x1b[H"
    run_id = next(run_id for run_id, row in rows(grid.out).items() if row["method"] == "dst")
    cell = copy.out / "cells" / run_id
    environment = {**read_json(cell / "environment.json"), "hostname": clear, clear: 1}
    write_json(cell / "environment.json", environment)
    result = read_json(cell / "result.json")
    result["environment"]["drift"] = [f"torch: {clear}1 -> 2"]
    write_json(cell / "result.json", sealed(result))
    for command in (("show", run_id), ("status",), ("plan", "--suite", copy.suite)):
        text = bench(*command, "--out", copy.out).stdout
        assert text.replace("\n", "").isprintable()
        assert (r"torch: \x1b[2J\x1b[H1 -> 2" in "".join(text.split("\n"))) == (command[0] != "plan")
    assert r"  hostname: \x1b[2J\x1b[H" in bench("show", run_id, "--out", copy.out).stdout
    assert bench("show", run_id, "--out", copy.out, "--json").json["environment"] == environment


def test_export_writes_the_same_tables_anew(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    copy = grid.copy(tmp_path / "runs")
    names = ("results.csv", "results.parquet", "traces.csv", "layers.csv")
    for name in names:
        (copy.out / name).unlink()
    assert bench("export", "--out", copy.out).code == 0
    assert all((copy.out / name).read_bytes() == (grid.out / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("suites", ["cifar10", "digits", "imagenet", "mnist", "thresholds"]),
        ("methods", ["dense", "dst"]),
        ("models", ["lstm-a"]),
        ("data", ["mnist"]),
    ],
)
def test_list_names_what_there_is(what: str, names: list[str], bench: Bench) -> None:
    assert set(names) <= set(bench("list", what, "--json").json)
    assert all(name in bench("list", what).stdout for name in names)


def test_one_name_of_a_list_is_listed_by_itself(bench: Bench) -> None:
    assert list(bench("list", "models", "lstm-a", "--json").json) == ["lstm-a"]
    assert bench("list", "models", "lstm-a").stdout.startswith("lstm-a  ")
    unknown = bench("list", "models", "lstm-z")
    assert (unknown.code, unknown.error[:60]) == (
        2,
        "error: unknown model 'lstm-z': did you mean 'lstm-b'? valid:"[:60],
    )


@pytest.mark.parametrize("name", registry.own())
def test_a_method_is_listed_with_its_hyperparameters_and_their_defaults(name: str, bench: Bench) -> None:
    found = bench("list", "methods", name, "--json").json
    made = methods.create(name)
    assert found["defaults"] == json.loads(json.dumps(made.hyperparameters()))
    assert list(found["types"]) == list(made.hyperparameters())
    assert (found["name"], found["version"], found["reference"]) == (name, made.version, made.reference)
    lines = bench("list", "methods", name).stdout.splitlines()
    starts = tuple(f"{hyper} {value!r}" for hyper, value in made.hyperparameters().items())
    assert sum(" ".join(line.split()).startswith(starts) for line in lines) == len(starts)


ODD = """
import methods


class Odd(methods.Method):
    \"\"\"Has arguments of all kinds.\"\"\"

    name, version, reference, density_promise = "odd", 1, "none", "dense"

    def __init__(self, *, needed, limit=float("inf"), chosen=print):
        self.needed, self.limit, self.chosen = needed, limit, chosen


methods.register("odd", f"{__name__}:Odd")
methods.register("gone", "nowhere:Gone")


def suite():
    return []
"""


def test_a_plug_in_is_listed_with_arguments_of_all_kinds(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    command = ("--suite", tmp_path / "odd.py")
    found = bench("list", "methods", "odd", *command, "--json").json
    assert found["types"] == {"needed": None, "limit": None, "chosen": None}
    assert found["defaults"] == {"limit": "inf", "chosen": "<built-in function print>"}
    lines = bench("list", "methods", "odd", *command).stdout.splitlines()
    assert ["needed", "required"] in [line.split() for line in lines]
    broken = bench("list", "methods", "gone", *command)
    assert (broken.code, "cannot be loaded from nowhere:Gone" in broken.error) == (2, True)


def test_a_doctor_without_a_compiler_says_so_in_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    finished = finish(start("doctor", "--out", tmp_path / "runs"))
    assert (finished.code, finished.stderr) == (0, "")
    (line,) = [line for line in finished.stdout.splitlines() if "kernels:" in line]
    assert line.startswith(
        "--  kernels: masked weights on the CPU are computed by plain operations, several times slower"
    )
    assert line.endswith("(no C++ compiler: install g++)")


def test_a_warning_in_a_command_is_one_line(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    suite = tmp_path / "warns.py"
    suite.write_text("import warnings\nwarnings.warn('two\\n  lines')\n" + MIXED)
    finished = finish(start("plan", "--suite", suite, "--out", grid.out, "--where", "method=dst"))
    assert (finished.code, finished.stderr) == (0, "warning: two lines\n")
