"""Which jobs are alive, by what squeue and sacct say. Both are stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmark.launch.slurm import queue as slurm_queue

SQUEUE = """case "$*" in *--all*) echo '7|RUNNING|n1|None';; esac
echo '8|COMPLETED|n1|None'
echo '9|PENDING||Resources'"""


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What sacct prints. squeue hides job 7, which is in a hidden partition, and does not have the others."""
    said = tmp_path / "said"
    for name, script in (("squeue", SQUEUE), ("sacct", f"cat {said}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    said.write_text("")
    return said


def test_a_job_in_a_hidden_partition_is_alive(sacct: Path) -> None:
    assert slurm_queue.states(["7"])["7"].name == "RUNNING"


@pytest.mark.parametrize(
    ("line", "job", "name"),
    [
        ("5|RUNNING|n1|0:0", "5", "RUNNING"),
        ("5_1|RUNNING|n1|0:0", "5_1", "RUNNING"),
        ("5_[2-4,9%2]|PENDING|n1|0:0", "5_3", "PENDING"),
        ("5_1|CANCELLED by 0|n1|0:0", "5_1", "CANCELLED"),
        ("8|FAILED|n1|1:0", "8", "FAILED"),
        ("8|RUNNING|n1|0:0", "8", "COMPLETED"),
        ("9|NODE_FAIL|n1|0:0", "9", "PENDING"),
        ("5_1|RUNNING|n1|0:0", "5_2", "UNKNOWN"),
    ],
)
def test_sacct_decides_about_jobs_that_squeue_does_not_have(sacct: Path, line: str, job: str, name: str) -> None:
    """Such as those of another user. SLURM calls a job that it queued again ended, in sacct only."""
    sacct.write_text(f"{line}\n")
    assert slurm_queue.states([job])[job].name == name
