"""A worker process: `python -m benchmark.launch.worker`. One configuration line, then a list of specs a line.

Messages are JSON lines on standard output. It ends with its dispatcher: standard input at its end
means that nobody waits for the results. Everything else it or its libraries print goes to standard error.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import queue
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmark.launch import followers
from benchmark.launch.base import Work

if TYPE_CHECKING:
    from benchmark.outcome import Outcome

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    messages = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stop, interrupts = threading.Event(), list[int]()
    for number in STOP_SIGNALS:
        signal.signal(number, functools.partial(_on_signal, stop, interrupts))
    work = Work.from_dict(json.loads(sys.stdin.readline()))
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks, stop), daemon=True).start()
    _run(work, tasks, stop, messages)


def _on_signal(stop: threading.Event, interrupts: list[int], number: int, _: FrameType | None) -> None:
    """Ask for the state to be saved; a second INT ends the process at once."""
    stop.set()
    interrupts += [number] if number == signal.SIGINT else []
    if len(interrupts) > 1:
        os._exit(128 + number)


def _read(tasks: queue.SimpleQueue[dict[str, Any]], stop: threading.Event) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("stop"):
            stop.set()
        else:
            tasks.put(message)
    os._exit(1)


def _run(work: Work, tasks: queue.SimpleQueue[dict[str, Any]], stop: threading.Event, messages: int) -> None:
    followers.take_first_device(work)
    import torch

    from benchmark import cell, plugins, program
    from benchmark.attempts import Observer
    from benchmark.engine import prepare_process
    from benchmark.spec import from_dict

    prepare_process(work.device)
    for plugin in work.plugins:
        plugins.load_file(plugin)
    group = followers.lead(work)
    place = cell.Place(
        out=work.out,
        data_dir=work.data_dir,
        device=work.device,
        accept_drift=work.accept_drift,
        retry_failed=work.retry_failed,
        group=group,
        cells_per_program=work.cells_per_program,
        cuda_graphs=work.cuda_graphs,
    )
    observer = Observer()

    def report(run_id: str, record: dict[str, Any]) -> None:
        _tell(messages, {"run_id": run_id, "report": record})

    while not stop.is_set():
        cells = {
            spec: cell.execution(
                spec, place, observer=observer, report=functools.partial(report, spec.run_id), stop=stop
            )
            for spec in map(from_dict, tasks.get()["specs"])
        }
        for run_id, result in program.ends(cells, work.cells_per_program):
            _tell(messages, {"run_id": run_id, "end": _end(result), **({} if group.idle else {"leaves": True})})
        if not group.idle:  # the followers are somewhere in a step
            os._exit(1)
        if torch.cuda.is_available() or work.cells_per_program > 1:
            gc.collect()  # a training holds itself, and in a program the memory of all
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _end(result: Outcome | Exception) -> dict[str, Any]:
    """How a cell ended, for the dispatcher."""
    from benchmark.cell import TO_MEND
    from benchmark.distributed import PeerError
    from benchmark.files import DiskFullError

    if not isinstance(result, Exception):
        return {"status": result.status, "error": result.error}
    if isinstance(result, (*TO_MEND, DiskFullError, PeerError)):
        return {"status": "refused", "error": str(result), "code": result.exit_code}
    return {"status": "failed", "error": f"{type(result).__name__}: {result}".splitlines()[0]}


def _tell(descriptor: int, message: dict[str, Any]) -> None:
    try:
        with os.fdopen(os.dup(descriptor), "wb") as pipe:
            pipe.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the dispatcher is gone: this is no failure of the cell
        os._exit(1)


if __name__ == "__main__":
    main()
