"""A job inside an Apptainer image: the command that starts its Python, and the end of its script.

The image has Python and the packages. The program is the one that submitted the job: the folders
where Python finds it are mounted at their own paths, as are the run folder, the data and plug-ins.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from benchmark.launch.base import LaunchError
from benchmark.launch.slurm.profile import CONTROL
from benchmark.training.execution import Execution

REQUEUE = 75  # the exit code of a task that wants its job queued again: EX_TEMPFAIL of sysexits.h
# an image has no scontrol, so the script queues the job again; SLURM then ends the script
AFTERWARDS = (
    "code=$?",
    f'if [ "$code" -eq {REQUEUE} ]; then',
    '  for try in 1 2 3 4 5 6 7 8 9 10; do scontrol requeue "$SLURM_JOB_ID" && break; sleep 6; done',
    "  sleep 60",
    "fi",
    'exit "$code"',
)


def python(image: str, *, gpus: bool, folders: Iterable[str]) -> list[str]:
    """The words of a command that start the image's Python, which sees these folders.

    Raises LaunchError for a folder that a script cannot hold.
    """
    mounts = [word for folder in _outermost(folders) for word in ("--mount", _mount(folder))]
    return ["apptainer", "exec", *(["--nv"] if gpus else []), *mounts, image, "python"]


def folders(execution: Execution, python_path: Iterable[str]) -> list[str]:
    """The folders of a job: the run folder, and those of data, plug-ins and Python that exist."""
    plugins = [str(plugin.parent) for plugin in execution.plugins if isinstance(plugin, Path)]
    others = (os.path.abspath(path) for path in (str(execution.data_dir), *plugins, *python_path))
    return [str(execution.out), *filter(os.path.isdir, others)]


def _outermost(folders: Iterable[str]) -> list[str]:
    """The folders without those inside another one, and without /, which would hide the image."""
    known = sorted({Path(folder) for folder in folders} - {Path("/")})
    return [str(folder) for folder in known if not set(folder.parents) & set(known)]


def _mount(folder: str) -> str:
    """Apptainer reads the value of --mount as a line of CSV, so a path may hold commas and quotes."""
    if CONTROL.search(folder):
        raise LaunchError(f"{folder!r} has to be mounted in the container: a job's script cannot hold it; rename it")
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={folder}", f"destination={folder}"])
    return line.getvalue()
