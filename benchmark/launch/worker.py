"""A worker process: `python -m benchmark.launch.worker`. One configuration line, then a spec a line.

Messages are JSON lines on standard output. It ends with its dispatcher: standard input at its end
means that nobody waits for the results. Everything else it or its libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    messages = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stop = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    configuration = json.loads(sys.stdin.readline())
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks, stop), daemon=True).start()
    _work(configuration, tasks, stop, messages)


def _read(tasks: queue.SimpleQueue[dict[str, Any]], stop: threading.Event) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("stop"):
            stop.set()
        else:
            tasks.put(message)
    os._exit(1)


def _work(
    configuration: dict[str, Any], tasks: queue.SimpleQueue[dict[str, Any]], stop: threading.Event, messages: int
) -> None:
    import torch

    from benchmark import cell, plugins
    from benchmark.attempts import Observer
    from benchmark.data import DataError
    from benchmark.files import DiskFullError
    from benchmark.spec import SpecError, from_dict

    prepare_torch(configuration["device"])
    for plugin in configuration["plugins"]:
        plugins.load_file(Path(plugin))
    place = cell.Place(
        out=Path(configuration["out"]),
        data_dir=Path(configuration["data_dir"]),
        device=configuration["device"],
        accept_drift=configuration["accept_drift"],
        retry_failed=configuration["retry_failed"],
    )
    observer = Observer()
    codes: dict[type[Exception], int] = {DataError: 3, SpecError: 2, cell.DriftError: 2, DiskFullError: 1}
    while True:
        spec = from_dict(tasks.get()["spec"])

        def report(record: dict[str, Any], run_id: str = spec.run_id) -> None:
            _tell(messages, {"run_id": run_id, "report": record})

        try:
            outcome = cell.execute(spec, place, observer=observer, report=report, stop=stop)
            end: dict[str, Any] = {"status": outcome.status, "error": outcome.error}
        except tuple(codes) as error:
            end = {"status": "refused", "error": str(error), "code": codes[type(error)]}
        except Exception as error:
            end = {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        _tell(messages, {"run_id": spec.run_id, "end": end})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _tell(descriptor: int, message: dict[str, Any]) -> None:
    try:
        with os.fdopen(os.dup(descriptor), "wb") as pipe:
            pipe.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the dispatcher is gone: this is no failure of the cell
        os._exit(1)


def prepare_torch(device: str) -> None:
    """Threads and determinism of this process: one thread on the CPU, deterministic kernels on a GPU."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
        return
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


if __name__ == "__main__":
    main()
