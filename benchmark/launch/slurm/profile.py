"""A cluster profile: the resources of each job, from a TOML file such as slurm/*.toml."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.messages import shown
from benchmark.spec import SpecError, nearest

SIGNAL_SECONDS = 90
SIGNAL_SHARE = 4
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # ends a line, or is no text at all
SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One job's resources, and how cells are distributed over jobs.

    time_minutes: a job's limit; cells that are not done by then save their state and are queued
    again. memory_gb: of a job. array_parallelism: jobs of one array that run at once. cells_per_job:
    cells that one job trains, several at a time if it has the workers. setup: shell lines before the program,
    such as `module load`. environment: variables of the job. container: the Apptainer image in which
    the job's Python runs, an absolute path. None and empty values leave the cluster's default.
    """

    time_minutes: int
    partition: str | None = None
    cpus_per_task: int = 1
    memory_gb: float | None = None
    gpus_per_task: int = 0
    constraint: str | None = None
    account: str | None = None
    array_parallelism: int = 256
    cells_per_job: int = 1
    setup: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    container: str | None = None

    def workers(self, *, processes_per_cell: int = 1) -> int:
        """Cells that a job trains at a time by default.

        One per GPU or core, divided by the processes of a cell.
        """
        room = (self.gpus_per_task or self.cpus_per_task) // processes_per_cell
        return min(max(1, room), self.cells_per_job)

    @property
    def signal_seconds(self) -> int:
        """How long before the limit cells are asked to save their state."""
        return min(SIGNAL_SECONDS, self.time_minutes * 60 // SIGNAL_SHARE)

    def parameters(self, *, job_name: str, python_path: str) -> dict[str, Any]:
        """The job as submitit's parameters of sbatch."""
        variables = {"PYTHONPATH": python_path, **self.environment}
        wanted = {
            "job_name": job_name,
            "partition": self.partition,
            "time": self.time_minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{megabytes(self.memory_gb)}MB" if self.memory_gb is not None else None,
            "gres": f"gpu:{self.gpus_per_task}" if self.gpus_per_task else None,
            "constraint": self.constraint,
            "account": self.account,
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": self.signal_seconds,
            "stderr_to_stdout": True,
            # whatever SBATCH_EXPORT says; and since SLURM 22.05 srun does not inherit the job's CPUs
            "srun_args": ["--export=ALL", f"--cpus-per-task={self.cpus_per_task}"],
            "setup": [*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), *self.setup],
            "additional_parameters": {"requeue": True},
        }
        return {name: value for name, value in wanted.items() if value not in (None, "")}


def megabytes(gigabytes: float) -> int:
    """A memory as SLURM takes it, in whole megabytes."""
    return round(gigabytes * 1024)


KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float | None": (int, float),
    "str | None": (str,),
    "tuple[str, ...]": (list,),
    "Mapping[str, str]": (dict,),
}
WORDS = {int: "a whole number", float: "a number", str: "a text", list: "a list of texts", dict: "a table of texts"}
AT_LEAST = {"time_minutes": 1, "cpus_per_task": 1, "gpus_per_task": 0, "array_parallelism": 1, "cells_per_job": 1}
AT_MOST = 2**31 - 1  # SLURM counts in 32 bits


def read(path: Path) -> Profile:
    """A profile from its file. Raises SpecError naming the file, the key and what it should be."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"--profile {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"--profile {path}: no TOML: {error}") from error
    known = {item.name: item for item in dataclasses.fields(Profile)}
    for name, value in document.items():
        if name not in known:
            raise SpecError(f"--profile {path}: unknown key {shown(name)}: {nearest(name, known)}")
        _check(path, name, value, KINDS[str(known[name].type)])
    if "time_minutes" not in document:
        raise SpecError(f"--profile {path}: time_minutes is missing: the time limit of a job")
    if "setup" in document:
        document["setup"] = tuple(document["setup"])
    if document.get("container"):
        document["container"] = _image(path, document["container"])
    return Profile(**document)


def _image(path: Path, text: str) -> str:
    """The absolute path of an image, which may be relative to the profile's folder. Raises SpecError."""
    image = os.path.abspath(path.parent / text)
    if CONTROL.search(image):
        raise SpecError(f"--profile {path}: container: a job's script cannot hold {shown(image)}; rename it")
    if not os.path.isfile(image):
        raise SpecError(f"--profile {path}: container is {shown(text)}, but there is no file {shown(image, most=300)}")
    return image


def _check(path: Path, name: str, value: Any, kinds: tuple[type, ...]) -> None:
    """Raises SpecError for a value of another kind, and for text that is more than one line of it."""
    where = f"--profile {path}: {name}"
    texts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if isinstance(value, bool) or not isinstance(value, kinds) or not all(isinstance(text, str) for text in texts):
        raise SpecError(f"{where} is {shown(value)}, not {WORDS[kinds[-1]]}")
    least = AT_LEAST.get(name, 0)
    if isinstance(value, (int, float)) and value < least:
        raise SpecError(f"{where} is {shown(value)}, less than {least}")
    if isinstance(value, (int, float)) and not value <= AT_MOST:  # nan is no number up to anything
        raise SpecError(f"{where} is {shown(value)}, not a number up to {AT_MOST}")
    if name == "memory_gb" and isinstance(value, (int, float)) and megabytes(value) < 1:
        whole = "SLURM reads 0 as all of a node's memory"
        raise SpecError(f"{where} is {shown(value)}, less than 1 MB: {whole}; give more")
    for text in [value] if isinstance(value, str) else texts:
        if CONTROL.search(text):
            raise SpecError(f"{where} holds {shown(text)}: write one line per text, without control characters")
    for variable in value if isinstance(value, dict) else ():
        if not SHELL_NAME.fullmatch(variable):
            raise SpecError(f"{where}: {shown(variable)} is no name of a shell variable, such as MY_NAME")
