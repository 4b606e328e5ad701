"""Which launcher runs the cells: the command line's choice, checked, and the launcher itself."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.launch import followers, process_ranks, variables
from benchmark.launch.base import Launcher
from benchmark.launch.local import LocalLauncher, default_workers
from benchmark.launch.process_ranks import Ranks
from benchmark.launch.slurm import profile as slurm_profile
from benchmark.launch.slurm.profile import Profile
from benchmark.spec import RunSpec, SpecError, check_names, check_processes
from benchmark.training.execution import Execution

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A launcher and its own options.

    workers: cells at once; None: the launcher's default. ranks: which of the cell's processes this
    one is, if torchrun or srun started them with the command.
    """

    name: str = "local"
    workers: int | None = None
    profile: Path | None = None
    ray_address: str | None = None
    detach: bool = False
    ranks: Ranks | None = None

    @property
    def elsewhere(self) -> bool:
        """True if other machines run the cells."""
        return self.name == "slurm" or self.ray_address is not None


def check(choice: Choice) -> None:
    """Raises SpecError for an unknown launcher, options of another one, and variables no worker can use."""
    variables.check()
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
    if choice.ranks is not None:
        process_ranks.check_host(choice.ranks)
    if choice.ranks is not None and (choice.name != "local" or choice.workers not in (None, 1)):
        raise SpecError("processes started with the command train one cell at a time: --launcher local, --workers 1")


def share(execution: Execution, choice: Choice, *, processes: int) -> Execution:
    """The execution with this many processes for each cell, or with those that were started already.

    Raises SpecError where the two differ, and where `check` does.
    """
    check(choice)
    ranks = choice.ranks
    if ranks is None:
        return dataclasses.replace(execution, processes=processes)
    if processes not in (1, ranks.size):
        raise SpecError(f"--processes-per-cell {processes}: {ranks.size} processes were started already")
    return dataclasses.replace(execution, processes=ranks.size, processes_started=True)


def prepare(choice: Choice, execution: Execution, specs: Sequence[RunSpec]) -> None:
    """Before cells run: check that the processes can share each cell, and let started ones meet.

    Raises SpecError for a cell that the processes cannot share.
    """
    for spec in specs:
        check_processes(spec, execution.processes)
    if choice.ranks is not None:
        followers.meet(choice.ranks, work=bool(specs))


def profile_of(choice: Choice) -> Profile:
    """The cluster's profile. Raises SpecError naming what is wrong with it."""
    assert choice.profile is not None, "check() requires a profile"
    return slurm_profile.read(choice.profile)


def create(choice: Choice, execution: Execution, *, cells: int) -> Launcher:
    """The launcher for this many cells.

    Raises SpecError for a profile that is wrong and for too many workers.
    """
    execution = execution.absolute()
    if choice.name == "slurm":
        from benchmark.launch.slurm.launcher import SlurmLauncher

        return SlurmLauncher(execution, profile_of(choice), workers=choice.workers, detach=choice.detach)
    if choice.name == "ray":
        from benchmark.launch.ray_tune.launcher import RayLauncher

        return RayLauncher(execution, workers=choice.workers, address=choice.ray_address, cells=cells)
    return LocalLauncher(execution, workers=min(workers_here(choice, execution), cells))


def workers_here(choice: Choice, execution: Execution) -> int:
    """How many cells the local launcher trains at once. Raises SpecError for more than there are GPUs for."""
    if execution.processes_started:
        return 1
    room, each = default_workers(execution.device), execution.processes
    wanted = choice.workers or max(1, room // each)
    if execution.device == "cuda" and each > 1 and wanted * each > room:
        raise SpecError(f"{wanted} workers of {each} processes need more than the {room} GPUs here")
    return wanted
