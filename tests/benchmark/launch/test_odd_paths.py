"""Folders and files of any name: every verb works on them, and writes nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import grids
import pytest
from grids import Finished, finish

FOLDER = "a [b]'\"é😀 100%25 #1 ?x=y;&"
# The name of a suite is the name of a file in any folder: letters, digits and . _ - only.
SUITE, OUT, DATA, TABLES, EXHIBITS = "-suite_1.py", "-runs ?mode=ro#", "-dàta%41", "-to '😀?", "-exhibits %"


@pytest.mark.slow
@pytest.mark.rare
def test_every_verb_works_in_folders_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_NO_MLFLOW")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    folder = tmp_path / FOLDER
    folder.mkdir()
    grids.write_suite(folder / SUITE, {"lenet-300-100": 2}, methods=["dst"])

    def verb(*words: str) -> Finished:
        done = finish(grids.start(*words, cwd=folder))
        assert (done.code, done.stderr) == (0, ""), words
        return done

    run = verb("run", "--suite", SUITE, "--out", OUT, "--data-dir", DATA, "--workers", "1")
    assert "warning" not in run.stdout
    (cell,) = grids.cells(folder / OUT)
    assert "1 cells; 1 done" in verb("status", "--out", OUT).stdout
    assert verb("plan", "--suite", SUITE, "--out", OUT, "--json").json["counts"] == {"done": 1}
    assert verb("show", cell.name, "--out", OUT, "--json").json["row"]["status"] == "done"
    assert "1 cells, 0 of them changed" in verb("sync", "--out", OUT).stdout, "the run had mirrored all of it"
    verb("export", "--from", "mlflow", "--out", OUT, "--to", TABLES)
    assert grids.tables(folder / TABLES) == grids.tables(folder / OUT)
    verb("export", "--out", OUT, "--to", TABLES)
    assert grids.tables(folder / TABLES) == grids.tables(folder / OUT)
    built = finish(grids.start("build", "--results", TABLES, "--out", EXHIBITS, package="analysis", cwd=folder))
    assert built.code == 0
    assert cell.name in (folder / EXHIBITS / "synthetic.csv").read_text()
    assert sorted(os.listdir(folder)) == sorted([SUITE, OUT, TABLES, EXHIBITS])
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
