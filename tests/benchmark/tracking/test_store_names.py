"""A database of any name: what is left of a broken start is removed, and nobody else's files are."""

from __future__ import annotations

from pathlib import Path

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
