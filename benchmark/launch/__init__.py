"""Where cells execute: one interface, one module a place."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.launch import followers
from benchmark.launch.base import Launcher, Work
from benchmark.ranks import Ranks, check_processes
from benchmark.spec import RunSpec, SpecError, check_names

if TYPE_CHECKING:
    from benchmark.launch.slurm_profile import Profile

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which launcher, and what is its alone. workers: cells at once; None: the launcher's default.

    processes: that train one cell together. ranks: this one of the processes, where they were started with
    the command.
    """

    name: str = "local"
    workers: int | None = None
    profile: Path | None = None
    ray_address: str | None = None
    detach: bool = False
    processes: int = 1
    ranks: Ranks | None = None

    @property
    def elsewhere(self) -> bool:
        """True where other machines run the cells."""
        return self.name == "slurm" or self.ray_address is not None


def check(choice: Choice) -> None:
    """Raises SpecError for an unknown launcher and for options of another one."""
    check_names([choice.name], NAMES, "launcher")
    if choice.name == "slurm" and choice.profile is None:
        raise SpecError("--launcher slurm needs --profile FILE.toml: the cluster's partition, time and memory")
    if choice.name == "ray" and importlib.util.find_spec("ray") is None:
        raise SpecError("--launcher ray needs Ray: pip install 'sparse-training-bench[ray]'")
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


def profile_of(choice: Choice) -> Profile:
    """The cluster's profile. Raises SpecError naming what is wrong with it."""
    from benchmark.launch import slurm_profile

    assert choice.profile is not None, "check() saw to it"
    return slurm_profile.read(choice.profile)


def create(choice: Choice, work: Work, *, cells: int) -> Launcher:
    """The launcher for so many cells. Raises SpecError for a profile that does not hold."""
    if choice.name == "slurm":
        from benchmark.launch.slurm import SlurmLauncher

        return SlurmLauncher(work, profile_of(choice), workers=choice.workers, detach=choice.detach)
    if choice.name == "ray":
        from benchmark.launch.ray import RayLauncher

        return RayLauncher(work, workers=choice.workers, address=choice.ray_address, cells=cells)
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
