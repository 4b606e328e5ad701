"""A run folder that was mirrored to MLflow, shared by the tests of this folder."""

from __future__ import annotations

import pytest
from grids import MIXED, Grid


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """grids.MIXED, run once with the mirror on, to be read only."""
    pytest.importorskip("mlflow")
    from mirrors import run

    folder = tmp_path_factory.mktemp("tracked")
    (folder / "mixed.py").write_text(MIXED)
    suite = str(folder / "mixed.py")
    return Grid(suite, folder / "runs", run(suite, folder / "runs"))
