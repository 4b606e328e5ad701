"""Where cells execute: one interface, one module a place."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.launch.base import Launcher, Work
from benchmark.spec import SpecError, check_names

if TYPE_CHECKING:
    from benchmark.launch.slurm_profile import Profile

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which launcher, and what is its alone. workers: processes at once; None: the launcher's default."""

    name: str = "local"
    workers: int | None = None
    profile: Path | None = None
    ray_address: str | None = None
    detach: bool = False

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
    from benchmark.launch.local import LocalLauncher, default_workers

    if choice.name == "ray":
        from benchmark.launch.ray import RayLauncher

        return RayLauncher(work, workers=choice.workers, address=choice.ray_address, cells=cells)
    return LocalLauncher(work, workers=min(choice.workers or default_workers(work.device), cells))
