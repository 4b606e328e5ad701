"""The states of SLURM jobs: from squeue for live jobs, from sacct for how others ended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.launch.base import LaunchError

ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT",
)  # fmt: skip
UNKNOWN = "UNKNOWN"
PATIENCE_SECONDS = 20
MAX_ARRAY_SIZE = 1001


class SlurmError(LaunchError):
    """SLURM does not answer or refuses: one line in its own words."""


@dataclass(frozen=True)
class State:
    """A job's state as SLURM names it, with the reason why it waits or its exit code, and its nodes."""

    name: str
    why: str = ""
    nodes: str = ""

    @property
    def ended(self) -> bool:
        return self.name in (*ENDED, UNKNOWN)

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why not in ("", "None", "0:0") else self.name


def states(jobs: Iterable[str]) -> dict[str, State]:
    """Each job's state. What squeue lists is as it says, as sacct calls requeued jobs ended.

    sacct says how other jobs ended, and that another user's are still there. UNKNOWN: squeue does not
    list the job, and sacct does not know it or cannot be asked. Raises SlurmError if squeue cannot be
    asked.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    listed = _call("squeue", "--me", "--all", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%r")
    found = {job: State(name, why, nodes) for job, name, nodes, why in _rows(listed) if job in wanted}
    if forgotten := {job for job in wanted if job not in found or found[job].ended}:
        accounted = _accounted(forgotten).items()
        found |= {job: state for job, state in accounted if state.ended or job not in found}
    return {job: found.get(job, State(UNKNOWN)) for job in wanted}


def _accounted(jobs: set[str]) -> dict[str, State]:
    """What sacct says of the jobs; it has one line, 7_[2-5], for what of an array has not started."""
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    try:
        text = _call(
            "sacct", "--allusers", "--noheader", "--parsable2", "--allocations", "-j", numbers,
            "--format=JobID,State,NodeList,ExitCode",
        )  # fmt: skip
    except SlurmError:
        return {}
    said = {job.partition("[")[0]: State(name.split(" ")[0], why, nodes) for job, name, nodes, why in _rows(text)}
    found = {job: said.get(job) or said.get(f"{job.partition('_')[0]}_") for job in jobs}
    return {job: state for job, state in found.items() if state is not None}


def _rows(text: str) -> list[list[str]]:
    return [line.split("|", 3) for line in text.splitlines() if line.count("|") >= 3]


def max_array_size() -> int:
    """How many jobs an array may have; SLURM's default if it does not say."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


def requeue(job: str) -> None:
    """Put a running job back into the queue. Raises SlurmError."""
    _call("scontrol", "requeue", job)


def cancel(folder: Path, *, job_name: str) -> None:
    """Cancel the jobs of this name whose script lies in the folder. Raises SlurmError."""
    listed = _call("squeue", "--me", "--all", "--noheader", f"--name={job_name}", "--format=%F|%o")
    found = (line.partition("|") for line in listed.splitlines())
    if jobs := {job for job, _, script in found if Path(script).parent == folder}:
        _call("scancel", *sorted(jobs))


def _call(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not installed: no SLURM on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gave no answer in {PATIENCE_SECONDS} s") from error
    if done.returncode:
        raise SlurmError(_last_line(command[0], done.stderr))
    return done.stdout


def _last_line(program: str, text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines() or ["it failed without a message"]
    return f"{program}: {lines[-1].removeprefix(f'{program}: error: ')}"
