"""A database of any name: what is left of a broken start is removed, and nobody else's files are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.tracking import store

pytest.importorskip("mlflow", reason="MLflow is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runs[1].db", "*.db"])
def test_only_leftovers_of_this_database_are_removed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / name}")
    leftover, other = tmp_path / f".{name}.0123.tmp", tmp_path / ".other.db.0123.tmp"
    leftover.touch()
    other.touch()
    store.connect(tmp_path, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, other.name])


@pytest.mark.slow
def test_a_relative_path_is_one_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///stores/relative.db")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs"
    assert store.experiment(store.connect(out, 30), out)
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["relative.db"]


def test_an_empty_address_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    elsewhere = SimpleNamespace(lifecycle_stage="active", artifact_location="file:///elsewhere", experiment_id="1")
    client: Any = SimpleNamespace(get_experiment_by_name=lambda _: elsewhere)
    with pytest.raises(store.TrackingError, match="the folder was moved or copied"):
        store.experiment(client, tmp_path)


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        ("HTTPConnectionPool(host='h', port=1): Max retries exceeded (Caused by NewConnectionError('refused'))", True),
        ("HTTPConnectionPool(host='h', port=1): Read timed out. (read timeout=4)", True),
        ("API request to endpoint /api/2.0 failed with error code 500 != 200.", True),
        ("(sqlite3.OperationalError) database is locked", True),
        ("Detected out-of-date database schema", False),
        ("API request to endpoint /api/2.0 failed with error code 403 != 200.", False),
    ],
)
def test_only_a_store_that_may_answer_later_does_not_answer(text: str, silent: bool, tmp_path: Path) -> None:
    with pytest.raises(store.TrackingError) as caught, store.trouble(tmp_path):
        raise RuntimeError(text)
    assert (store.NO_ANSWER in str(caught.value)) is silent
