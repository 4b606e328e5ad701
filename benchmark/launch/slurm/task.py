"""What runs inside a SLURM job: a local pool over its cells, requeued near the time limit."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark import terminal
from benchmark.launch.base import Event
from benchmark.launch.local import LocalLauncher
from benchmark.launch.slurm import container, jobs
from benchmark.launch.slurm import queue as slurm_queue
from benchmark.run_folder.attempts import STALE_SECONDS, cluster_job
from benchmark.spec import from_dict
from benchmark.training.execution import Execution

AGAIN = (signal.SIGUSR1, signal.SIGUSR2)
SIGNALS = (signal.SIGINT, signal.SIGTERM, *AGAIN)
SHOWN = ("epoch", "test_accuracy", "density", "resumed", "warning", "status", "error")
PATIENCE_SECONDS = 2 * STALE_SECONDS  # with a job's allocation, for workers that have its cells
REQUEUE_TRIES, REQUEUE_PAUSE_SECONDS = 10, 6.0


def run_cells(task: Mapping[str, Any]) -> None:
    """Train a job's cells.

    task: execution, specs, before (see ClusterJob), workers, probe, in_container; plain values, as
    submitit pickles them; jobs from before containers lack in_container. After SIGUSR1 or SIGUSR2
    (the time limit is near, or preemption) the job requeues itself if a cell got further since the
    job began; in a container, its script does so. After SIGTERM (scancel, or SLURM requeues it by
    itself) it saves the state and ends. A cell that failed in this job before it was requeued is
    not trained again. If other workers have all cells that are left, the job ends after two minutes.
    """
    terminal.replace_unknown_characters()
    _see(Path(task["probe"]))
    execution = Execution.from_dict(task["execution"])
    specs = [spec for spec in map(from_dict, task["specs"]) if not _over(execution.out, spec.run_id, task["before"])]
    if not specs:
        return
    begun = jobs.newest_attempts(execution.out, [spec.run_id for spec in specs])
    workers = min(task["workers"], len(specs))
    launcher = LocalLauncher(execution, workers=workers, patience_seconds=PATIENCE_SECONDS)
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        launcher.stop()

    for number in SIGNALS:
        signal.signal(number, stop)  # replaces submitit's handler, which would end the process at once
    launcher.submit(specs)
    ended = {event.run_id for event in map(_say, launcher.events()) if event.kind == "end"}
    if not received and (left := begun.keys() - ended):
        print(f"other workers have {', '.join(sorted(left))}: this job is not needed and ends", flush=True)
    if received and any(jobs.final_status(execution.out, run_id, after=begun[run_id]) is None for run_id in begun):
        moved = any(jobs.got_further(execution.out, run_id, after=begun[run_id]) for run_id in begun)
        _leave(received, moved=moved, in_container=task.get("in_container", False))


def _see(probe: Path) -> None:
    if not probe.exists():
        sys.exit(f"node {socket.gethostname()} does not see {probe}: --out must lie on storage that all nodes share")


def _over(out: Path, run_id: str, before: Mapping[str, int]) -> bool:
    """Whether the cell has a result, or has failed since the job was submitted."""
    end = jobs.final_status(out, run_id, after=before[run_id])
    return end is not None and end["status"] != "cancelled"


def _leave(received: Sequence[int], *, moved: bool, in_container: bool) -> None:
    names = ", ".join(signal.Signals(number).name for number in received)
    job, _ = cluster_job()
    if job is None or not set(received) & set(AGAIN):
        sys.exit(f"stopped by {names}: the cells' state is saved")
    if not moved:
        sys.exit(f"stopped by {names} before any cell got further: give the profile more time_minutes")
    print(f"stopped by {names}: the cells' state is saved; the job goes back into the queue", flush=True)
    if in_container:
        sys.exit(container.REQUEUE)
    for _ in range(REQUEUE_TRIES):
        try:
            slurm_queue.requeue(job)
        except slurm_queue.SlurmError as error:
            print(error, flush=True)
            time.sleep(REQUEUE_PAUSE_SECONDS)
        else:
            # SLURM ends this process; exiting first could cancel the requeue
            time.sleep(REQUEUE_PAUSE_SECONDS)
            break
    sys.exit(f"stopped by {names}")


def _say(event: Event) -> Event:
    """Print the event."""
    text = ", ".join(f"{name} {value}" for name, value in event.payload.items() if name in SHOWN and value != "")
    print(f"{time.strftime('%H:%M:%S')} {event.run_id} {event.kind}: {text}".rstrip(": "), flush=True)
    return event
