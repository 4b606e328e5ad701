"""Environment variables that no worker can use end the command before anything is trained."""

from __future__ import annotations

from pathlib import Path

import grids
import pytest
from grids import Bench

from benchmark.launch import variables
from benchmark.launch.ray_tune import trial


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("BENCH_CHECKPOINT_SECONDS", value) for value in ("abc", "", "nan", "-1", "inf", "1e400", "1e10")],
        *[("OMP_NUM_THREADS", value) for value in ("a", "0", "-2", "9" * 400)],
        ("MKL_NUM_THREADS", "two"),
        ("SPARSE_TRAINING_KERNELS", "fast"),
        *[("RANK", value) for value in ("a", "-1", "\N{SUPERSCRIPT TWO}", "9" * 5000)],
        *[(name, "a") for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")],
    ],
    ids=lambda value: value[:20],
)
def test_a_variable_of_no_use_is_one_line_that_names_it(
    name: str, value: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite = grids.write_suite(tmp_path / "one.py", {"lenet-300-100": 1}, methods=["dense"])
    monkeypatch.setenv(name, value)
    refused = bench("run", "--suite", suite, "--out", tmp_path / "runs")
    assert (refused.code, refused.stdout) == (2, "")
    assert f"{name} is '{value[:10]}" in refused.error
    assert "unset it" in refused.error
    assert len(refused.error) < 300
    assert not (tmp_path / "runs").exists()


def test_a_trial_of_ray_has_the_variables_that_decide_a_cells_bits() -> None:
    given = {"OMP_NUM_THREADS": "2", "SPARSE_TRAINING_KERNELS": "eager", "BENCH_CHECKPOINT_SECONDS": "9", "HOME": "/"}
    assert trial.variables(given).keys() == given.keys() - {"HOME"}


def test_variables_that_workers_can_use_are_taken() -> None:
    variables.check({})
    variables.check(
        {"BENCH_CHECKPOINT_SECONDS": "0.5", "OMP_NUM_THREADS": "4,2", "MKL_NUM_THREADS": " 8 ", "RANK": "a word"}
    )
    variables.check({"SPARSE_TRAINING_KERNELS": "eager", "BENCH_CHECKPOINT_SECONDS": "1e9"})
    variables.check({"SPARSE_TRAINING_KERNELS": ""})
