"""`new` writes a file and a test that pass as they are, and refuses names that would not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from grids import Bench, rows

KINDS = ("method", "model", "suite")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_and_its_test_pass_and_its_suite_runs(kind: str, bench: Bench, tmp_path: Path) -> None:
    name = f"our_{kind}"
    written = bench("new", kind, name, "--folder", tmp_path / "ours", "--json")
    file, test = tmp_path / "ours" / f"{name}.py", tmp_path / "ours" / f"test_{name}.py"
    assert (written.code, written.json["files"]) == (0, [str(file), str(test)])
    assert written.json["commands"] == [f"python -m pytest {test}", f"python -m benchmark run --suite {file}"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    short = ("--seeds", "0", "--set", "optimizer.epochs=1", "--out", tmp_path / "runs")
    finished = bench("run", "--suite", file, *short)
    assert (finished.code, finished.stderr) == (0, "")
    trained = rows(tmp_path / "runs").values()
    assert {row["status"] for row in trained} == {"done"}
    assert kind == "suite" or name in {row[kind] for row in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_named_throughout_and_nothing_is_replaced(kind: str, bench: Bench, tmp_path: Path) -> None:
    assert bench("new", kind, "quite_new2", "--folder", tmp_path).code == 0
    texts = {path: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(path.name for path in texts) == ["quite_new2.py", "test_quite_new2.py"]
    assert not any("my_name" in text or "MyName" in text for text in texts.values())
    assert kind == "suite" or "class QuiteNew2(" in texts[tmp_path / "quite_new2.py"]
    (tmp_path / "test_quite_new2.py").unlink()
    again = bench("new", kind, "quite_new2", "--folder", tmp_path)
    assert (again.code, again.error) == (
        2,
        f"error: {tmp_path / 'quite_new2.py'} is there already: choose another name or --folder",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["quite_new2.py"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "dst", "there is a method 'dst' already: choose another name"),
        ("suite", "digits", "there is a suite 'digits' already: choose another name"),
        ("model", "my-model", "'my-model' is no name of a Python module: use letters, digits and _, such as my_model"),
        ("method", "class", "'class' is no name of a Python module"),
        ("method", "../mine", "'../mine' is no name of a Python module"),
        ("method", "_mine", "'_mine' is no name of a Python module"),
        ("suite", "queue", "there is a module 'queue' already, which the file would hide: choose another name"),
        ("suite", "torch", "there is a module 'torch' already, which the file would hide: choose another name"),
        ("method", "context", "the class of 'context' would be Context, which the file uses: choose another name"),
        ("paper", "mine", "unknown kind 'paper': valid: method, model, suite"),
    ],
)
def test_a_name_that_would_not_work_is_refused(
    kind: str, name: str, message: str, bench: Bench, tmp_path: Path
) -> None:
    refused = bench("new", kind, name, "--folder", tmp_path)
    assert refused.code == 2
    assert refused.error.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())
