"""A worker process: `python -m benchmark.launch.worker`. One line of configuration, then one spec per line.

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
from collections.abc import Callable
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

    from benchmark import cell, plugins
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
    )
    observer = Observer()

    while not stop.is_set():
        spec = from_dict(tasks.get()["spec"])

        def report(record: dict[str, Any], run_id: str = spec.run_id) -> None:
            _send(messages, {"run_id": run_id, "report": record})

        end = _end(functools.partial(cell.execute, spec, place, observer=observer, report=report, stop=stop))
        _send(messages, {"run_id": spec.run_id, "end": end, **({} if group.idle else {"leaves": True})})
        if not group.idle:  # the followers are somewhere in a step
            os._exit(1)
        if torch.cuda.is_available():
            gc.collect()  # a training is held by cycles of references
            torch.cuda.empty_cache()


def _end(execute: Callable[[], Outcome]) -> dict[str, Any]:
    """Run a cell; how it ended, for the dispatcher."""
    from benchmark.cell import TO_MEND
    from benchmark.distributed import PeerError
    from benchmark.files import DiskFullError

    try:
        outcome = execute()
    except (*TO_MEND, DiskFullError, PeerError) as error:
        return {"status": "refused", "error": str(error), "code": error.exit_code}
    except Exception as error:
        return {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"status": outcome.status, "error": outcome.error}


def _send(descriptor: int, message: dict[str, Any]) -> None:
    try:
        with os.fdopen(os.dup(descriptor), "wb") as pipe:
            pipe.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the dispatcher is gone: this is no failure of the cell
        os._exit(1)


if __name__ == "__main__":
    main()
