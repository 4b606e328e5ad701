"""A worker process: `python -m benchmark.launch.worker`.

It reads one line of configuration, then one spec per line. Its messages are JSON lines on standard
output; everything else that it or its libraries print goes to standard error. It ends with its
dispatcher: the end of standard input means that nobody waits for the results.
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

from benchmark import suites, terminal
from benchmark.launch import followers
from benchmark.messages import describe, one_line
from benchmark.run_folder.attempts import Observer
from benchmark.run_folder.storage import StorageError
from benchmark.spec import SpecError, from_dict
from benchmark.training.execution import Execution

if TYPE_CHECKING:
    from benchmark.training.publish import Outcome

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    messages = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    terminal.replace_unknown_characters()
    stop, interrupts = threading.Event(), list[int]()
    for number in STOP_SIGNALS:
        signal.signal(number, functools.partial(_on_signal, stop, interrupts))
    execution = Execution.from_dict(json.loads(sys.stdin.readline()))
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks, stop), daemon=True).start()
    _run(execution, tasks, stop, messages)


def _on_signal(stop: threading.Event, interrupts: list[int], number: int, _: FrameType | None) -> None:
    """Ask for the state to be saved; a second SIGINT ends the process at once."""
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


def _run(execution: Execution, tasks: queue.SimpleQueue[dict[str, Any]], stop: threading.Event, messages: int) -> None:
    devices = followers.keep_first_device(execution)
    import torch

    from benchmark.training.cell import execute
    from benchmark.training.engine import prepare_process
    from benchmark.training.process_group import Group

    prepare_process(execution.device)
    problem = _load_plugins(execution)
    group, observer = Group() if problem else followers.lead(execution, devices), Observer()
    while not stop.is_set():
        spec = from_dict(tasks.get()["spec"])

        def report(record: dict[str, Any], run_id: str = spec.run_id) -> None:
            _send(messages, {"run_id": run_id, "report": record})

        train = functools.partial(execute, spec, execution, group=group, observer=observer, report=report, stop=stop)
        end = problem or _end(train)
        _send(messages, {"run_id": spec.run_id, "end": end, **({} if group.idle else {"leaves": True})})
        if not group.idle:  # the followers are in the middle of a step
            os._exit(1)
        if torch.cuda.is_available():
            gc.collect()  # reference cycles hold a training and its memory
            torch.cuda.empty_cache()


def _load_plugins(execution: Execution) -> dict[str, Any] | None:
    """Load what registers the specs' names; how every cell ends if that fails."""
    try:
        for plugin in execution.plugins:
            suites.load_plugin(plugin)
    except SpecError as error:
        return {"status": "refused", "error": one_line(str(error)), "code": error.exit_code}
    return None


def _end(train: Callable[[], Outcome]) -> dict[str, Any]:
    """Train a cell; how it ended, for the dispatcher."""
    from benchmark.training.cell import USER_ERRORS
    from benchmark.training.process_group import PeerError

    try:
        outcome = train()
    except (*USER_ERRORS, StorageError, PeerError) as error:
        return {"status": "refused", "error": one_line(str(error)), "code": error.exit_code}
    except Exception as error:
        return {"status": "failed", "error": describe(error)}
    return {"status": outcome.status, "error": outcome.error}


def _send(descriptor: int, message: dict[str, Any]) -> None:
    try:
        with os.fdopen(os.dup(descriptor), "wb") as pipe:
            pipe.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the dispatcher has ended, which is no failure of the cell
        os._exit(1)


if __name__ == "__main__":
    main()
