"""A process's ranks: read as torchrun and srun write them, or refused in one line before anything is trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grids
import pytest

from benchmark.launch import process_ranks
from benchmark.spec import SpecError

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_JOB_ID": "7",
}


def test_ranks_are_read_as_torchrun_writes_them_and_one_process_has_none() -> None:
    two = process_ranks.Ranks(rank=1, size=2, local_rank=1, address="a", port=5)
    assert process_ranks.find("auto", two.to_environment()) == two
    assert process_ranks.find("auto", dataclasses.replace(two, rank=0, size=1).to_environment()) is None
    assert process_ranks.find("auto", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}) is None


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        ("127.0.0.1", "x", "MASTER_PORT is 'x' in the environment: it must be a whole number from 1 to 65535"),
        ("127.0.0.1", "99999", "MASTER_PORT is '99999' in the environment"),
        ("127.0.0.1", "1" * 5000, "it must be a whole number from 1 to 65535"),
        ("no..host", "5", "MASTER_ADDR is 'no..host', not a host that this machine can find"),
        ("nowhere.invalid", "5", "MASTER_ADDR is 'nowhere.invalid', not a host that this machine can find"),
    ],
)
def test_a_meeting_place_that_cannot_be_is_one_line(
    address: str, port: str, said: str, tmp_path: Path, bench: grids.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": address, "MASTER_PORT": port}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    refused = bench("run", "--out", tmp_path / "runs")
    assert refused.code == 2
    assert said in refused.error
    assert not (tmp_path / "runs").exists()


def test_slurms_tasks_are_asked_for_and_started_by_srun() -> None:
    with pytest.raises(SpecError, match=r"--ranks slurm: SLURM_PROCID is not set; start the command with srun"):
        process_ranks.find("slurm", {})
    with pytest.raises(SpecError, match=r"did you mean 'slurm'"):
        process_ranks.find("slurmd", {})


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"RANK": "2"}, "RANK is '2' in the environment: it must be a whole number from 0 to 1"),
        ({"LOCAL_RANK": "9"}, "LOCAL_RANK is '9'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0' in the environment: it must be a whole number from 1 to"),
        ({"WORLD_SIZE": "9999999999"}, "WORLD_SIZE is '9999999999'"),
        (
            {"MASTER_PORT": "65536"},
            "MASTER_PORT is '65536' in the environment: it must be a whole number from 1 to 65535",
        ),
        ({"MASTER_ADDR": "no host\n"}, r"MASTER_ADDR is 'no host\n' in the environment: it must be the name of a host"),
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
