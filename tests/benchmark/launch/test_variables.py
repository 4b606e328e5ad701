"""Environment variables that no worker can use end the command before anything is trained."""

from __future__ import annotations

from pathlib import Path

import grids
import pytest
from grids import Bench

from benchmark.launch import process_ranks, variables
from benchmark.spec import SpecError

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_JOB_ID": "7",
}


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


def test_variables_that_workers_can_use_are_taken() -> None:
    variables.check({})
    variables.check(
        {"BENCH_CHECKPOINT_SECONDS": "0.5", "OMP_NUM_THREADS": "4,2", "MKL_NUM_THREADS": " 8 ", "RANK": "a word"}
    )
    variables.check({"SPARSE_TRAINING_KERNELS": "eager", "BENCH_CHECKPOINT_SECONDS": "1e9"})
    variables.check({"SPARSE_TRAINING_KERNELS": ""})


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"RANK": "2"}, "RANK is '2' in the environment: it must be a whole number from 0 to 1"),
        ({"LOCAL_RANK": "9"}, "LOCAL_RANK is '9'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0' in the environment: it must be a whole number from 1 to"),
        ({"WORLD_SIZE": "9999999999"}, "WORLD_SIZE is '9999999999'"),
        (
            {"MASTER_PORT": "65536"},
            "MASTER_PORT is '65536', not a port: a number from 1 to 65535",
        ),
        ({"MASTER_ADDR": "no host\n"}, "MASTER_ADDR is 'no host' in the environment: it must be the name of a host"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is ''"),
    ],
)
def test_ranks_of_torchrun_that_cannot_be_are_named(changes: dict[str, str], fragment: str) -> None:
    assert process_ranks.find("auto", TORCHRUN) is not None
    with pytest.raises(SpecError) as refused:
        process_ranks.find("auto", TORCHRUN | changes)
    assert fragment in str(refused.value)


@pytest.mark.parametrize("name", [name for name in SLURM if name != "SLURM_STEP_NODELIST"])
def test_ranks_of_srun_that_cannot_be_are_named(name: str) -> None:
    with pytest.raises(SpecError, match=f"^{name} is 'a'"):
        process_ranks.find("slurm", SLURM | {name: "a"})


@pytest.mark.parametrize("answer", ["exit 1", "exit 0", None], ids=["refuses", "names none", "is not there"])
def test_a_scontrol_that_names_no_host_is_one_line(
    answer: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if answer is not None:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match=r"scontrol names no host of SLURM_STEP_NODELIST 'node\[1-2\]'"):
        process_ranks.find("slurm", SLURM)
