"""Pickles that a stranger left in DIR/ray: Ray Tune writes beside them and restores none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import grids
import pytest
from poison import poison

from benchmark import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
NAMES = (
    *("tuner.pkl", "trainable.pkl", "error.pkl", "params.pkl", "searcher-state-0.pkl", "search_gen_state-0.json"),
    *("experiment_state-0.json", "basic-variant-state-0.json", ".validate_storage_marker", "checkpoint.pkl"),
)


def test_ray_restores_nothing_that_lay_in_the_folder_before(tmp_path: Path) -> None:
    out, trace = tmp_path / "runs", tmp_path / "trace"
    suite = grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 1}, methods=["dense"])
    results.prepare(out)
    planted = poison(trace)
    for folder in (out / "ray", out / "ray" / "20260101-000000-000000-1", out / "ray" / "checkpoint_000000"):
        folder.mkdir()
        for name in NAMES:
            (folder / name).write_bytes(planted)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    command = ("run", "--suite", suite, "--out", out, "--launcher", "ray", "--workers", "1", "--no-mlflow")
    finished = grids.finish(grids.start(*command))
    assert (finished.code, finished.stderr) == (0, "")
    assert not trace.exists()
    assert {path: path.read_bytes() for path in before} == before
