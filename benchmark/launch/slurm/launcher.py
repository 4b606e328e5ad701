"""Cells in SLURM job arrays, submitted with submitit, watched in the run folder and the queue."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import io
import os
import re
import shlex
import shutil
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from benchmark.launch.base import Event, Job, LaunchError
from benchmark.launch.slurm import container, jobs
from benchmark.launch.slurm import queue as slurm_queue
from benchmark.launch.slurm.folder_watch import FolderWatch
from benchmark.launch.slurm.jobs import ClusterJob
from benchmark.launch.slurm.profile import CONTROL, Profile
from benchmark.launch.slurm.queue import SlurmError, State
from benchmark.run_folder.attempts import Observer, check_own_folder, folder_of, mark_ended, numbers
from benchmark.spec import RunSpec
from benchmark.training.execution import Execution

JOBS_ALLOWED = 3
POLL_SECONDS, POLL_SHARE = 1.0, 10
QUEUE_SECONDS = 5.0
PAUSE_SECONDS, PAUSE_GROWTH = 30.0, 4  # before another job, after one that could begin no cell
STUCK = ("BadConstraints", "JobHeldAdmin", "JobHeldUser", "PartitionTimeLimit", "launch failed requeued held")
CLIENT = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_JWT")  # how SLURM's commands reach their cluster
MISSING = "--launcher slurm needs submitit: pip install 'sparse-training-bench[slurm]'"


class SlurmLauncher:
    """Arrays of jobs with a profile's resources.

    Jobs that SLURM still has from an earlier command are adopted. `events` ends with the last cell,
    or after `stop`; then the jobs continue without this process.
    """

    stop_message = "leaving: the jobs go on in SLURM; the same command follows them again, scancel ends them"

    def __init__(self, execution: Execution, profile: Profile, *, workers: int | None, detach: bool) -> None:
        """Raises LaunchError for a folder that SLURM cannot write to or no container can mount, and as `check_gpus`."""
        check_folder(execution.out)
        self._execution, self._profile, self._detach = execution, profile, detach
        self.python = _python(execution, profile)  # the words that start Python in a job
        workers = workers or profile.workers(processes_per_cell=execution.processes)
        self._workers_per_job = min(workers, profile.cells_per_job)
        check_gpus(execution, profile, workers=self._workers_per_job)
        self.workers = self._workers_per_job * profile.array_parallelism
        self._specs: dict[str, RunSpec] = {}
        self._jobs: dict[str, ClusterJob] = {}
        self._deaths: collections.Counter[str] = collections.Counter()
        self._in_vain: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        self._not_before: dict[str, float] = {}
        self._submissions_failed = 0
        self._refusals: dict[str, str] = {}
        self._reported: set[str] = set()
        self._observer = Observer()
        self._stopping = False
        self._next_queue = 0.0
        self.adopted = 0

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]:
        """Raises SlurmError or LaunchError if SLURM does not accept the jobs, FolderError as `_submit`."""
        self._specs = {spec.run_id: spec for spec in specs}
        self._watch = FolderWatch(self._execution.out, specs)
        self._adopt(self._specs.keys())
        self.adopted = len(self._jobs)
        in_a_job = self._in_jobs()
        free = [spec for spec in specs if spec.run_id not in in_a_job]
        self._submit([spec for spec in free if not jobs.has_result(self._execution.out, spec.run_id)])
        return [Job(spec.run_id) for spec in specs]

    def _adopt(self, run_ids: Set[str]) -> None:
        """Follow the jobs that SLURM has for these cells, with those of their cells that have not ended."""
        out = self._execution.out
        others = [job for job in jobs.read(out) if job.job not in self._observer.dead_jobs | self._jobs.keys()]
        mine = [job for job in others if job.launcher == "slurm" and not run_ids.isdisjoint(job.cells)]
        left = [dataclasses.replace(job, cells=tuple(job.left(out))) for job in mine]
        states = slurm_queue.states(job.job for job in left)
        self._jobs |= {job.job: job for job in left if not states[job.job].ended and not run_ids.isdisjoint(job.cells)}

    def _in_jobs(self) -> set[str]:
        """The cells of the jobs that are followed."""
        return {run_id for job in self._jobs.values() for run_id in job.cells}

    def _submit(self, specs: Sequence[RunSpec]) -> None:
        """Raises FolderError for a cell whose folder is a link."""
        for spec in specs:
            check_own_folder(self._execution.cell(spec.run_id))  # no job could say it in a folder that is a link
        size = self._profile.cells_per_job
        chunks = [specs[at : at + size] for at in range(0, len(specs), size)]
        limit = slurm_queue.max_array_size() if len(chunks) > 1 else 1
        for at in range(0, len(chunks), limit):
            self._submit_array(chunks[at : at + limit])

    def _submit_array(self, chunks: Sequence[Sequence[RunSpec]]) -> None:
        folder = submission_folder(self._execution.out)
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir(mode=0o700)
        probe = folder / "probe"
        probe.touch()
        before = [jobs.newest_attempts(self._execution.out, [spec.run_id for spec in chunk]) for chunk in chunks]
        tasks = [
            {
                "execution": self._execution.to_dict(),
                "specs": [spec.to_dict() for spec in chunk],
                "before": attempts,
                "workers": self._workers_per_job,
                "in_container": bool(self._profile.container),
                "probe": str(probe),
            }
            for chunk, attempts in zip(chunks, before, strict=True)
        ]
        try:
            submitted = _sbatch(folder, self.parameters(), tasks, python=self.python)
        except LaunchError:  # SLURM may have them: without their pickles they could do nothing
            with contextlib.suppress(SlurmError):
                slurm_queue.cancel(folder, job_name=job_name(self._execution.out))
            shutil.rmtree(folder, ignore_errors=True)
            raise
        new = [
            ClusterJob(name, tuple(attempts), log, attempts)
            for (name, log), attempts in zip(submitted, before, strict=True)
        ]
        self._keep(new)

    def _keep(self, new: Sequence[ClusterJob]) -> None:
        """Raises LaunchError with the jobs' ids if they cannot be written down."""
        try:
            jobs.append(self._execution.out, new)
        except OSError as error:
            names, path = ", ".join(sorted({job.job.partition("_")[0] for job in new})), self._execution.out / jobs.NAME
            raise LaunchError(
                f"{path} cannot be written ({error.strerror}), so no command will know the SLURM jobs {names}: "
                "mend that, end them with scancel, and give the same command again"
            ) from error
        self._jobs |= {job.job: job for job in new}

    def parameters(self) -> dict[str, Any]:
        """What submitit writes into the job's script."""
        name, path = job_name(self._execution.out), os.pathsep.join(_python_paths())
        afterwards = {"teardown": list(container.AFTERWARDS)} if self._profile.container else {}
        return self._profile.parameters(job_name=name, python_path=path) | afterwards

    def stop(self) -> None:
        self._stopping = True

    def kill(self) -> None:
        self._stopping = True

    def events(self) -> Iterator[Event]:
        while self._watch.open and not self._stopping and not self._detach:
            started = time.monotonic()
            yield from self._patiently(self._watch.poll())
            looked = time.monotonic()
            if self._watch.open and looked >= self._next_queue:
                yield from self._patiently(self._ask_queue())
                self._next_queue = time.monotonic() + max(QUEUE_SECONDS, time.monotonic() - looked)
            if self._watch.open:
                time.sleep(max(POLL_SECONDS, POLL_SHARE * (looked - started)))

    def _patiently(self, look: Iterator[Event]) -> Iterator[Event]:
        """What a look found. If SLURM or the storage does not answer, nothing is concluded."""
        first = self._watch.open[0]
        try:
            yield from look
        except (SlurmError, OSError) as error:
            yield from self._once(first, f"{error}; waiting for it")

    def _ask_queue(self) -> Iterator[Event]:
        """Ask SLURM about the jobs, and submit the cells that no job has. Raises SlurmError and OSError."""
        open_cells = set(self._watch.open)
        wanted = [job for job in self._jobs.values() if open_cells & set(job.cells)]
        states = slurm_queue.states(job.job for job in wanted)
        for job in wanted:
            yield from self._stuck(job, states[job.job])
        yield from self._settle([(job, states[job.job]) for job in wanted if states[job.job].ended])
        in_a_job = self._in_jobs()
        now = time.monotonic()
        left = [run_id for run_id in self._watch.open if run_id not in in_a_job]
        due = [run_id for run_id in left if self._not_before.get(run_id, now) <= now]
        if orphans := {run_id for run_id in due if self._orphaned(run_id)}:
            self._adopt(orphans)  # another command may have submitted them since
            self._submit_again([run_id for run_id in due if run_id in orphans - self._in_jobs()])

    def _submit_again(self, run_ids: Sequence[str]) -> None:
        """Raises SlurmError or OSError if the jobs cannot be submitted; the next try is then minutes away."""
        if not run_ids:
            return
        try:
            self._submit([self._specs[run_id] for run_id in run_ids])
        except (SlurmError, OSError):
            pause = PAUSE_SECONDS * PAUSE_GROWTH ** min(self._submissions_failed, 2)
            self._submissions_failed += 1
            self._not_before |= dict.fromkeys(run_ids, time.monotonic() + pause)
            raise
        self._submissions_failed = 0

    def _orphaned(self, run_id: str) -> bool:
        """Whether no other worker has a cell that is in no job of ours."""
        cell = self._execution.out / "cells" / run_id
        attempts = numbers(cell)
        return not attempts or self._observer.over(folder_of(cell, attempts[-1]))

    def _once(self, run_id: str, text: str) -> Iterator[Event]:
        if text not in self._reported:
            self._reported.add(text)
            yield Event(run_id, "warning", {"warning": text})

    def _stuck(self, job: ClusterJob, state: State) -> Iterator[Event]:
        if state.name == "PENDING" and state.why in STUCK:
            yield from self._once(
                job.cells[0], f"its SLURM job {job.job} waits and will not start by itself: {state.why}"
            )

    def _settle(self, ended: Sequence[tuple[ClusterJob, State]]) -> Iterator[Event]:
        """End the cells that ended jobs left open, or leave them for another job."""
        yield from self._watch.poll()  # a job may have written its last result since the last poll
        for job, state in ended:
            del self._jobs[job.job]
            self._observer.dead_jobs.add(job.job)
            if state.name == "CANCELLED":
                jobs.mark_cancelled(self._execution.out, job)
            if job.got_further(self._execution.out):
                for run_id in job.cells:
                    self._deaths.pop(run_id, None)
                    self._in_vain.pop(run_id, None)
            begun = job.begun(self._execution.out)
            for run_id in filter(self._watch.is_open, dict.fromkeys(job.cells)):
                yield from self._left(run_id, job, state, begun)

    def _left(self, run_id: str, job: ClusterJob, state: State, begun: Set[str]) -> Iterator[Event]:
        """End a cell that its job left open, or leave it for another job.

        begun: the job's cells that began. If none did, the cell is not what went wrong.
        """
        where = f" on {state.nodes}" if state.nodes else ""
        cause, then = f"its SLURM job {job.job} ended{where} as {state}: {job.last_line()}", ""
        final = job.ended(self._execution.out, run_id)
        if final is None and not self._orphaned(run_id):
            yield Event(run_id, "warning", {"warning": f"{cause}; another worker has the cell"})
            return
        if final is None and run_id in begun:
            self._deaths[run_id] += 1
            if self._deaths[run_id] >= JOBS_ALLOWED:
                mark_ended(self._execution.out / "cells" / run_id, cause, dead_jobs={job.job})
                final = job.ended(self._execution.out, run_id)
        elif final is None and not begun:
            nodes = self._in_vain[run_id]
            nodes.append(state.nodes or "an unknown node")
            pause = PAUSE_SECONDS * PAUSE_GROWTH ** (len(nodes) - 1)
            self._not_before[run_id], then = time.monotonic() + pause, f" in {pause:.0f} s"
            if len(nodes) >= JOBS_ALLOWED:
                final = self._refusal(", ".join(sorted(set(nodes))), job, state)
        if final is None:
            yield Event(run_id, "warning", {"warning": f"{cause}; another job goes on with it{then}"})
        else:
            self._watch.close(run_id)
            yield Event(run_id, "end", final)

    def _refusal(self, nodes: str, job: ClusterJob, state: State) -> dict[str, Any]:
        """How a cell ends that no job could begin on these nodes: the same for all such cells."""
        error = (
            f"{JOBS_ALLOWED} SLURM jobs in a row ended on {nodes} before they began a cell, job {job.job} as {state}: "
            f"{job.last_line()}; mend the cause (see {job.log}), then give the same command again"
        )
        return {"status": "refused", "error": self._refusals.setdefault(nodes, error), "code": LaunchError.exit_code}


def job_name(out: Path) -> str:
    """The name of a run folder's jobs in the queue: bench-<folder>-<hash of its path>."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in out.name)
    return f"bench-{plain[:20]}-{hashlib.sha256(str(out).encode()).hexdigest()[:6]}"


def submission_folder(out: Path) -> Path:
    """A new folder for what submitit writes for one array, not made yet.

    A job loads the pickle of its number in there, maybe before submitit has put it there. In a
    folder that is older than the array, that could be a stranger's, and so any code.
    """
    return out / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:12]}"


def check_folder(out: Path) -> None:
    """Raises LaunchError for a path that a script cannot hold, or that SLURM reads as a pattern.

    SLURM replaces `%j` and the like in the names of a job's files, and a backslash turns that off.
    """
    path = str(out)
    if found := re.search(r"[%\\]", path) or CONTROL.search(path):
        raise LaunchError(f"--out {path!r}: SLURM writes into no folder with {found[0]!r} in its path; rename it")


def check_gpus(execution: Execution, profile: Profile, *, workers: int) -> None:
    """Raises LaunchError if the processes of cells would have to share GPUs."""
    wanted = workers * execution.processes
    if execution.device == "cuda" and execution.processes > 1 and wanted > profile.gpus_per_task:
        raise LaunchError(
            f"--processes-per-cell {execution.processes}: a job needs {wanted} GPUs (workers: {workers}), and the "
            f"profile has gpus_per_task = {profile.gpus_per_task}: raise it"
        )


def script(execution: Execution, profile: Profile, *, workers: int | None, cells: int) -> str:
    """The sbatch script of a grid's first array, as submitit writes it. Needs no SLURM."""
    submitit_slurm = _submitit()
    execution = execution.absolute()
    folder = submission_folder(execution.out)
    launcher = SlurmLauncher(execution, profile, workers=workers, detach=True)
    chunks = -(-cells // profile.cells_per_job)
    command = shlex.join([*launcher.python, "-u", "-m", "submitit.core._submit", str(folder)])
    arrays = {"map_count": chunks} if chunks > 1 else {}
    text: str = submitit_slurm._make_sbatch_string(command=command, folder=folder, **launcher.parameters(), **arrays)
    return text


def _submitit() -> Any:
    try:
        import submitit.slurm.slurm
    except ImportError as error:
        raise LaunchError(MISSING) from error
    return submitit.slurm.slurm


def _sbatch(
    folder: Path, parameters: dict[str, Any], tasks: Sequence[dict[str, Any]], *, python: Sequence[str]
) -> list[tuple[str, str]]:
    """Submit one array; each job's id and the file of its output."""
    slurm = _submitit()
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from benchmark.launch.slurm.task import run_cells

    if slurm.SlurmExecutor.affinity() < 0:
        raise SlurmError("srun is not installed: no SLURM on this machine")
    executor = submitit.SlurmExecutor(folder=folder, python=shlex.join(python))
    executor.update_parameters(**parameters)
    try:
        # submitit also prints what its error says
        with contextlib.redirect_stderr(io.StringIO()), _outside_allocations():
            submitted = executor.map_array(run_cells, tasks)
    except (FailedJobError, FailedSubmissionError) as error:
        lines = str(error).strip().splitlines()
        said = [line for line in lines if line.startswith("sbatch: error")]
        hint = "'sinfo' shows whether a cluster answers; --dry-run needs none"
        raise SlurmError(f"SLURM did not take the jobs ({(said or lines)[-1]}): {hint}") from error
    return [(str(job.job_id), str(job.paths.stdout)) for job in submitted]


@contextlib.contextmanager
def _outside_allocations() -> Iterator[None]:
    """sbatch hands its variables to the job, whose srun takes an allocation's for its own."""
    inside = {name: os.environ[name] for name in os.environ if name.startswith("SLURM_") and name not in CLIENT}
    for name in inside:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(inside)


def _python(execution: Execution, profile: Profile) -> list[str]:
    """The words that start a job's Python: this one, or that of the profile's image.

    Raises LaunchError for a folder that cannot be mounted in the container.
    """
    if not profile.container:
        return [sys.executable]
    folders = container.folders(execution, _python_paths())
    return container.python(profile.container, gpus=profile.gpus_per_task > 0, folders=folders)


def _python_paths() -> list[str]:
    """Where a job finds this package and what the user's suites import.

    That is this checkout, the current folder and PYTHONPATH. A package that pip installed is found
    by the job's own Python. Raises LaunchError for a path that is no text.
    """
    home = str(Path(__file__).resolve().parents[3])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    checkout = [] if home == os.path.realpath(sysconfig.get_path("purelib")) else [home]
    paths = list(dict.fromkeys(path for path in (*checkout, os.getcwd(), *given) if path))
    for path in paths:
        if CONTROL.search(path):
            raise LaunchError(f"{path!r}, where jobs find Python files: a job's script cannot hold it; rename it")
    return paths
