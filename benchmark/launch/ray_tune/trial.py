"""One cell as a trial of Ray Tune.

The cell runs in a worker process of its own, so Ray's settings do not reach it. The cell resumes
from our checkpoints; Ray's are not used.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.launch.base import Event
from benchmark.launch.local import LocalLauncher
from benchmark.launch.variables import KERNELS
from benchmark.spec import RunSpec, from_dict
from benchmark.training.execution import Execution

SET_BY_RAY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # from a trial's CPUs; other threads, other bits
OURS = "BENCH_"
STOP_POLL_SECONDS = 0.5
USAGE = 2
LEFT = {"event": "end", "end": {"status": "interrupted", "error": ""}}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The launching process's variables that a cell depends on, for `train` on any machine."""
    return {n: value for n, value in environment.items() if n in (*SET_BY_RAY, KERNELS) or n.startswith(OURS)}


def train(config: dict[str, Any]) -> None:
    """Tune's function trainable: reports each event of its cell as {"event": kind, kind: payload}.

    config: `cell` with its spec, `execution`, `variables`, and `sign`, a folder under --out; a file
    `stop` in it asks cells to end.
    """
    from ray import tune

    execution, sign = Execution.from_dict(config["execution"]), Path(config["sign"])
    if (error := unseen(execution, sign)) is not None:
        tune.report({"event": "end", "end": {"status": "refused", "error": error, "code": USAGE}})
        return
    if (sign / "stop").exists():
        tune.report(LEFT)
        return
    for name in SET_BY_RAY:
        os.environ.pop(name, None)
    os.environ.update(config["variables"])
    last = ""
    for event in _events(from_dict(config["cell"]["spec"]), execution, sign / "stop"):
        last = event.kind
        tune.report({"event": event.kind, event.kind: event.payload})
    if last != "end":  # it waited for another worker's attempt
        tune.report(LEFT)


def unseen(execution: Execution, sign: Path) -> str | None:
    """One line about a file of the run that this machine does not see, or None."""
    files = [("--suite", plugin) for plugin in execution.plugins if isinstance(plugin, Path)]
    for option, path in (("--out", sign), *files):
        if not path.exists():
            return f"{platform.node()} does not see {path}: {option} must lie on storage that every worker sees"
    return None


def _events(spec: RunSpec, execution: Execution, stop: Path) -> Iterator[Event]:
    launcher = LocalLauncher(execution, workers=1)
    launcher.submit([spec])
    over = threading.Event()

    def pass_on_stop() -> None:
        while not over.wait(STOP_POLL_SECONDS):
            if stop.exists():
                launcher.stop()

    threading.Thread(target=pass_on_stop, daemon=True).start()
    try:
        yield from launcher.events()
    finally:
        over.set()
