"""This process's rank among the processes of one cell, if torchrun or SLURM's srun started them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.run_folder.messages import one_line
from benchmark.spec import SpecError, check_names

SOURCES = ("auto", "slurm")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
FIRST_PORT, PORTS, LAST_PORT = 10_000, 20_000, 65_535
MOST_PROCESSES, MOST_JOBS = 1_000_000, 2**32
HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among the processes of a command.

    rank: of `size` processes. local_rank: on its machine. address, port: of rank 0, where the
    processes meet.
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int

    def to_environment(self) -> dict[str, str]:
        """Environment variables with torchrun's names."""
        values = (self.rank, self.size, self.local_rank, self.address, self.port)
        return dict(zip(TORCHRUN, map(str, values), strict=True))


def find(source: str, environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """This process's ranks.

    auto: torchrun's, or None for a single process. slurm: srun's. Raises SpecError.
    """
    check_names([source], SOURCES, "value of --ranks")
    if source == "slurm":
        return _of_slurm(environment)
    for name in TORCHRUN[:3]:
        if name in environment:
            _number(environment, name)
    port = _port(environment.get("MASTER_PORT", "1"))
    if any(name not in environment for name in TORCHRUN) or _number(environment, "WORLD_SIZE", low=1) == 1:
        return None
    rank, size, local_rank = _ranks(environment, TORCHRUN)
    address = environment["MASTER_ADDR"]
    if not HOST.fullmatch(address):
        raise SpecError(f"MASTER_ADDR is '{one_line(address)[:40]}' in the environment: it must be the name of a host")
    return Ranks(rank=rank, size=size, local_rank=local_rank, address=address, port=port)


def _ranks(environment: Mapping[str, str], names: tuple[str, ...]) -> tuple[int, int, int]:
    """(rank, number of processes, rank on the machine) from the variables of these names."""
    size = _number(environment, names[1], low=1)
    return _number(environment, names[0], high=size - 1), size, _number(environment, names[2], high=size - 1)


def _port(text: str) -> int:
    """A port's number. Raises SpecError."""
    if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= LAST_PORT:
        return int(text)
    shown = one_line(text)[:40]
    raise SpecError(f"MASTER_PORT is '{shown}', not a port: a number from 1 to {LAST_PORT}; or unset it")


def _number(environment: Mapping[str, str], name: str, *, low: int = 0, high: int = MOST_PROCESSES) -> int:
    """A variable's whole number. Raises SpecError."""
    text = environment[name]
    if re.fullmatch(r"[0-9]{1,10}", text) and low <= int(text) <= high:
        return int(text)
    raise SpecError(
        f"{name} is '{one_line(text)[:40]}' in the environment: it must be a whole number from {low} to {high}; "
        "start the command with torchrun or srun, or unset it"
    )


def _of_slurm(environment: Mapping[str, str]) -> Ranks | None:
    if missing := [name for name in SLURM if name not in environment]:
        raise SpecError(f"--ranks slurm: {missing[0]} is not set; start the command with srun, one task per process")
    rank, size, local_rank = _ranks(environment, SLURM)
    if size == 1:
        return None
    job = _number(environment, "SLURM_JOB_ID", high=MOST_JOBS)
    part = _number({"SLURM_STEP_ID": "0", **environment}, "SLURM_STEP_ID", high=MOST_JOBS)
    # so two steps of a job, or two jobs of a machine, seldom use the same port
    port = FIRST_PORT + (job * 7 + part) % PORTS
    address = _first_host(environment["SLURM_STEP_NODELIST"])
    return Ranks(rank=rank, size=size, local_rank=local_rank, address=address, port=port)


def _first_host(nodes: str) -> str:
    """The first host of SLURM's list of nodes, such as `node[1-4]`. Raises SpecError."""
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    except (OSError, ValueError, subprocess.CalledProcessError, IndexError) as error:
        name = one_line(nodes)[:40]
        raise SpecError(f"--ranks slurm: scontrol names no host of SLURM_STEP_NODELIST '{name}'") from error
