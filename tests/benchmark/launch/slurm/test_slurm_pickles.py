"""A pickle that a stranger left in the run folder under the number of a job to come: the job does not load it.

`sbatch` is a stand-in that starts the job at once, before submitit has put the job's own pickle in place.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import grids
import pytest
from grids import Bench
from poison import poison

from benchmark import results

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
JOB = "7"
SBATCH = """
import os, subprocess, sys, time

with open({log!r}, "wb") as log:
    job = subprocess.Popen(["bash", sys.argv[-1]], stdout=log, stderr=log, env=os.environ | {job})
open({pid!r}, "w").write(str(job.pid))
while b"Loading pickle" not in open({log!r}, "rb").read() and job.poll() is None:
    time.sleep(0.1)
time.sleep(1)
print("Submitted batch job {number}")
"""
SRUN = """
import os, sys

os.execv(sys.executable, sys.argv[sys.argv.index(sys.executable):])
"""
VARIABLES = {
    "SLURM_JOB_ID": JOB,
    "SLURM_NTASKS": "1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_job_loads_no_pickle_that_lay_in_the_folder_before(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, log, pid, programs = tmp_path / "trace", tmp_path / "log", tmp_path / "pid", tmp_path / "bin"
    suite = grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 1}, methods=["dense"])
    script = SBATCH.format(log=str(log), pid=str(pid), number=JOB, job=repr(VARIABLES))
    program(programs, "sbatch", script)
    program(programs, "srun", SRUN)
    for name in ("squeue", "scontrol", "sacct"):
        program(programs, name, "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
    out, profile = tmp_path / "runs", tmp_path / "ours.toml"
    profile.write_text("time_minutes = 5\n")
    results.prepare(out)
    (out / "slurm").mkdir()
    for name in (f"{JOB}_submitted.pkl", f"{JOB}_0_submitted.pkl", f"{JOB}_0_result.pkl"):
        (out / "slurm" / name).write_bytes(poison(trace))
    options = ("--launcher", "slurm", "--profile", profile, "--detach")
    done = bench("run", "--suite", suite, "--out", out, *options)
    assert (done.code, done.stderr) == (0, "")
    grids.wait_for(lambda: not Path(f"/proc/{pid.read_text()}/exe").exists(), "the end of the job")
    assert not trace.exists()
    (folder,) = (path for path in (out / "slurm").iterdir() if path.is_dir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "Job completed successfully" in log.read_text()
    assert [row["status"] for row in bench("status", "--out", out, "--json").json["cells"]] == ["done"]
