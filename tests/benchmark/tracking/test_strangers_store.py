"""An MLflow store from a stranger: `sync` and `export` write nothing outside their folders and run none of its content.

Tags that are paths, rows that are not their cells', and runs with artifacts elsewhere are in `test_tracking`.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from grids import Finished, Grid, finish, start
from poison import poison

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow


def command(*arguments: str | Path) -> Finished:
    """In a process of its own: MLflow remembers the folder of a run's artifacts by the run's id."""
    return finish(start(*arguments))


def change(out: Path, *statements: str) -> None:
    """Change the database, so that the next sync writes to every run again."""
    with contextlib.closing(sqlite3.connect(out / "mlflow.db")) as database:
        for statement in (*statements, "UPDATE tags SET value = 'again' WHERE key = 'mirrored'"):
            database.execute(statement)
        database.commit()


def artifacts(out: Path) -> list[Path]:
    """The folder of artifacts of each run."""
    found = sorted(out.glob("mlartifacts/*/artifacts"))
    assert len(found) == 6, "five cells and a suite"
    return found


def trigger(out: Path, outside: Path) -> None:
    body = f"UPDATE runs SET artifact_uri = '{outside.as_uri()}' WHERE run_uuid = NEW.run_uuid; END"
    change(out, "DELETE FROM tags WHERE key = 'folder'", f"CREATE TRIGGER t AFTER INSERT ON runs BEGIN {body}")


def view(out: Path, outside: Path) -> None:
    change(out, "CREATE VIEW v AS SELECT 1")


def place(out: Path, outside: Path) -> None:
    change(out, f"UPDATE experiments SET artifact_location = '{outside.as_uri()}'")


def name(out: Path, outside: Path) -> None:
    change(out, "UPDATE experiments SET name = '../../../outside/x' WHERE name LIKE 'sparse%'")


def linked(above: int, below: str = ".") -> Callable[[Path, Path], None]:
    """Links in the place of something of each run: so many folders above its artifacts, or below."""

    def damage(out: Path, outside: Path) -> None:
        change(out)
        for number, folder in enumerate(artifacts(out)):
            path = [folder, *folder.parents][above] / below
            target = outside / str(number)
            if path.is_dir():
                target.mkdir()
                shutil.rmtree(path)
                path.symlink_to(target)
            elif path.is_file():
                target.write_text("mine\n")
                path.unlink()
                path.symlink_to(target)

    return damage


def folder_of_a_files_name(out: Path, outside: Path) -> None:
    change(out)
    (outside / "bashrc").write_text("mine\n")
    for folder in artifacts(out):
        if (path := folder / "spec.json").exists():
            path.unlink()
            path.mkdir()
            (path / "spec.json").symlink_to(outside / "bashrc")


IS_NO_FILE = "is a link or a folder, not what 'sync' wrote there: remove it"
REFUSED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a trigger moves the artifacts of new runs": (trigger, "has a trigger 't', which MLflow did not make"),
    "a view": (view, "has a view 'v', which MLflow did not make"),
    "the experiment keeps its artifacts elsewhere": (place, "keeps its artifacts in file://"),
    "the folder of a run is a link": (linked(1), IS_NO_FILE),
    "the artifacts of a run are a link": (linked(0), IS_NO_FILE),
    "an artifact is a link": (linked(0, "row.json"), IS_NO_FILE),
    "a folder has the name of an artifact": (folder_of_a_files_name, IS_NO_FILE),
}


@pytest.fixture(scope="module")
def original(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its store, to be read only."""
    out = grid.copy(tmp_path_factory.mktemp("original") / "runs").out
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert command("sync", "--out", out).code == 0
    return out


@pytest.fixture
def out(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy whose store was made at the place where it lies."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copied = shutil.copytree(original, tmp_path / "runs")
    for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
        change(copied, f"UPDATE {table} SET {column} = replace({column}, '{original.as_uri()}', '{copied.as_uri()}')")
    return copied


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.rare if n else ()) for n, k in enumerate(REFUSED)])
def test_a_store_that_leads_elsewhere_is_refused_and_nothing_is_written_there(
    kind: str, out: Path, outside: Path, tmp_path: Path
) -> None:
    damage, said = REFUSED[kind]
    damage(out, outside)
    before = content(outside)
    for verb in (("sync",), ("export", "--from", "mlflow", "--to", tmp_path / "to")):
        refused = command(*verb, "--out", out)
        assert content(outside) == before
        assert (refused.code, said in refused.error) == (1, True), refused.stderr
        assert not (tmp_path / "to").exists()


def test_an_experiment_whose_name_is_a_path_is_none_of_ours(out: Path, outside: Path) -> None:
    name(out, outside)
    assert command("sync", "--out", out).code == 0
    assert content(outside) == {}
    assert sorted(path.name for path in out.parent.iterdir()) == ["outside", "runs"]


def test_artifacts_that_are_pickles_are_never_loaded(out: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    planted = poison(trace)
    for folder in artifacts(out):
        (folder / "model").mkdir()
        for path in (*folder.glob("*.json*"), folder / "python_model.pkl", folder / "model" / "model.pkl"):
            path.write_bytes(planted)
        flavor = "{loader_module: os, python_model: model.pkl}"
        (folder / "model" / "MLmodel").write_text(f"flavors: {{python_function: {flavor}}}")
    refused = command("export", "--from", "mlflow", "--out", out, "--to", tmp_path / "to")
    assert refused.code in (1, 2)
    assert refused.error
    assert not trace.exists()
    change(out)
    assert command("sync", "--out", out).code == 0
    assert command("export", "--from", "mlflow", "--out", out, "--to", tmp_path / "to").code == 0
    assert not trace.exists()
