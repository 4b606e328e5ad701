"""Where cells execute: one interface, one module a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.launch import followers
from benchmark.launch.base import Launcher, Work
from benchmark.ranks import Ranks, check_processes
from benchmark.spec import RunSpec, SpecError, check_names

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which launcher, and what is its alone. workers: cells at once; None: the launcher's default.

    processes: that train one cell together. ranks: this one of them, where they were started with the command.
    """

    name: str = "local"
    workers: int | None = None
    profile: Path | None = None
    ray_address: str | None = None
    detach: bool = False
    processes: int = 1
    ranks: Ranks | None = None


def check(choice: Choice) -> None:
    """Raises SpecError for an unknown launcher and for options of another one."""
    check_names([choice.name], NAMES, "launcher")
    if choice.name == "slurm" and choice.profile is None:
        raise SpecError("--launcher slurm needs --profile FILE.toml: the cluster's partition, time and memory")
    for option, given, owner in (
        ("--profile", choice.profile is not None, "slurm"),
        ("--detach", choice.detach, "slurm"),
        ("--ray-address", choice.ray_address is not None, "ray"),
    ):
        if given and choice.name != owner:
            raise SpecError(f"{option} is of --launcher {owner}")
    if choice.ranks is not None and (choice.name != "local" or choice.workers not in (None, 1)):
        raise SpecError("processes started with the command train one cell at a time: --launcher local, --workers 1")


def prepare(choice: Choice, specs: Sequence[RunSpec]) -> None:
    """Before cells run: SpecError for one that the processes cannot share; processes that were started meet."""
    for spec in specs:
        check_processes(spec, choice.processes)
    if choice.ranks is not None:
        followers.meet(choice.ranks, work=bool(specs))


def create(choice: Choice, work: Work, *, cells: int) -> Launcher:
    """The launcher for so many cells."""
    from benchmark.launch.local import LocalLauncher

    return LocalLauncher(work, workers=min(_workers(choice, work), cells))


def _workers(choice: Choice, work: Work) -> int:
    from benchmark.launch.local import default_workers

    if work.ranks_started:
        return 1
    room = default_workers(work.device)
    wanted = choice.workers or max(1, room // work.processes_per_cell)
    if work.device == "cuda" and work.processes_per_cell > 1 and wanted * work.processes_per_cell > room:
        raise SpecError(f"{wanted} workers of {work.processes_per_cell} processes need more than the {room} GPUs here")
    return wanted
