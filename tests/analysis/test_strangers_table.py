"""A results table from a stranger, and a folder of exhibits that holds a stranger's links.

`analysis build` and `compare` write nothing outside --out, and nothing of a table is run as code. Fields and values
that are code are in `exhibits/test_compact_networks`, names that are paths or those of other files in `test_build`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.build import build
from analysis.data.read import InputError, load
from benchmark.results import COLUMNS, write_csv

COMMITTED = Path(__file__).resolve().parents[2] / "paper_figures/results/mnist-lenet-300-100"
ONLY = ["table1", "figure2", "compact-networks"]
PATHS = ("../x", "/tmp/x", "..", ".", "a/b", "a\\b", "a\nb", "", "x" * 101, "$(touch x)", "`touch x`")


def content(folder: Path) -> dict[str, Any]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def crafted(folder: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The committed cells with every row and its spec edited, and with the run ids of the new specs."""
    folder.mkdir()
    rows = pd.read_csv(COMMITTED / "results.csv", dtype=str, keep_default_na=False).to_dict("records")
    for row in rows:
        spec = json.loads(row["spec"])
        edit(row, spec)
        row["spec"] = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        row["run_id"] = hashlib.sha256(row["spec"].encode()).hexdigest()[:12]
    write_csv(folder / "results.csv", COLUMNS, rows)
    return folder


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("column", ["dataset", "model", "method", "run_id"])
def test_a_name_that_is_no_name_writes_nothing(column: str, name: str, tmp_path: Path) -> None:
    def edit(row: dict[str, Any], spec: dict[str, Any]) -> None:
        row[column] = name
        if column != "run_id":
            spec["data" if column == "dataset" else column]["name"] = name

    table = crafted(tmp_path / "table", edit)
    if column == "run_id":
        rows = pd.read_csv(table / "results.csv", dtype=str, keep_default_na=False)
        write_csv(table / "results.csv", COLUMNS, rows.assign(run_id=name).to_dict("records"))
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"results\.csv"):
        build(load([table]), tmp_path / "out")
    assert content(tmp_path) == before


def test_exhibits_are_not_written_through_links(tmp_path: Path) -> None:
    """Every file that a build writes, as a link that a stranger left in the folder."""
    tables, outside = load([COMMITTED]), tmp_path / "outside"
    names = [path.name for exhibit in build(tables, tmp_path / "first", only=ONLY) for path in exhibit.files]
    assert {"table1.md", "figure2.pdf", "figure2.csv", "compact-networks.py"} <= set(names)
    outside.mkdir()
    for name in (*names, "index.html", "manifest.json"):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        (outside / name).write_text("mine\n")
        (out / name).symlink_to(outside / name)
        for _ in ("a link to something", "a link to nothing"):
            before = content(tmp_path)
            with pytest.raises(InputError, match=f"{name} is a link, and exhibits are not written through links"):
                build(tables, out, only=["table1"])
            assert content(tmp_path) == before
            (outside / name).unlink(missing_ok=True)


def test_the_folder_of_exhibits_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    build(load([COMMITTED]), tmp_path / "out", only=["table1"])
    assert (tmp_path / "disk" / "table1.md").is_file()


@pytest.mark.parametrize("name", ["results.csv", "traces.csv", "layers.csv", "run-folder.json"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    shutil.copytree(COMMITTED, tmp_path / "table")
    pipe = tmp_path / "table" / name
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "analysis", "build", "--results", str(tmp_path / "table"), "--only", "table1"]
    ended = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {pipe} is ")
    assert len(ended.stderr.splitlines()) == 1
