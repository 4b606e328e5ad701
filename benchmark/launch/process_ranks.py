"""This process's rank among the processes of one cell, if torchrun or SLURM's srun started them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.spec import SpecError, check_names

SOURCES = ("auto", "slurm")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
FIRST_PORT, PORTS = 10_000, 20_000


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
    if int(environment.get("WORLD_SIZE", "1")) == 1 or any(name not in environment for name in TORCHRUN):
        return None
    rank, size, local_rank = (int(environment[name]) for name in TORCHRUN[:3])
    address, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    if not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise SpecError(f"MASTER_PORT is {port!r}, not a port: a number from 1 to 65535")
    return Ranks(rank=rank, size=size, local_rank=local_rank, address=address, port=int(port))


def check_host(ranks: Ranks) -> None:
    """Raises SpecError if this machine cannot find the host of rank 0: the processes would wait for minutes."""
    try:
        socket.getaddrinfo(ranks.address, ranks.port)
    except (OSError, UnicodeError) as error:
        raise SpecError(f"MASTER_ADDR is {ranks.address!r}, not a host that this machine can find: {error}") from error


def _of_slurm(environment: Mapping[str, str]) -> Ranks | None:
    if missing := [name for name in SLURM if name not in environment]:
        raise SpecError(f"--ranks slurm: {missing[0]} is not set; start the command with srun, one task per process")
    rank, size, local_rank = (int(environment[name]) for name in SLURM[:3])
    if size == 1:
        return None
    nodes = environment["SLURM_STEP_NODELIST"]
    listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False)
    if not listed.stdout.split():
        raise SpecError(f"SLURM_STEP_NODELIST is {nodes!r}, not a list of nodes: {listed.stderr.strip()}")
    # so two steps of a job, or two jobs of a machine, seldom use the same port
    step = int(environment["SLURM_JOB_ID"]) * 7 + int(environment.get("SLURM_STEP_ID", "0"))
    port = FIRST_PORT + step % PORTS
    return Ranks(rank=rank, size=size, local_rank=local_rank, address=listed.stdout.split()[0], port=port)
