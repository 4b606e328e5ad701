"""The process that talks to Ray: `python -m benchmark.launch.ray_tune.driver`.

It keeps Ray's signal handlers, output and crashes out of the launching process. It reads one line
of configuration from standard input and writes JSON lines to standard output: first {"workers",
"device"} or {"error"}, then events of cells. It ends with its parent, and a local Ray with it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from benchmark.launch.ray_tune.trial import train

DEATHS_ALLOWED = 10  # of a cell's nodes or trials
KNOWS_TOKENS = (2, 52)
OBJECT_STORE_BYTES = 100 * 2**20


def main() -> None:
    messages = Messages(os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        tuner, ready = prepare(order, messages)
    except Exception as error:
        messages.send({"error": (str(error).strip().splitlines() or [type(error).__name__])[0]})
        raise
    messages.send(ready)
    tuner.fit()


def prepare(order: dict[str, Any], messages: Messages) -> tuple[tune.Tuner, dict[str, Any]]:
    """Connect to Ray, or start it; the grid as a Tuner, and {workers, device}.

    workers: how many cells run at once; device: where.
    """
    _connect(order)
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    execution, gpus = order["execution"], int(has.get("GPU", 0))
    if execution["device"] == "auto":
        execution["device"] = "cuda" if gpus else "cpu"
    if execution["device"] == "cuda" and not gpus:
        raise ValueError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    processes = execution["processes"]
    room = gpus if execution["device"] == "cuda" else int(has.get("CPU", 1))
    workers = order["workers"] or max(1, room // processes)
    share = 1.0 if processes > 1 else gpu_share(workers, gpus)
    resources = {"cpu": float(processes)} | ({"gpu": processes * share} if execution["device"] == "cuda" else {})
    constant = {"execution": execution, "sign": order["sign"], "variables": order["variables"]}
    tuner = tune.Tuner(
        tune.with_resources(train, resources),
        param_space={"cell": tune.grid_search(order["cells"]), **constant},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=workers, reuse_actors=True, trial_name_creator=_run_id, trial_dirname_creator=_run_id
        ),
        run_config=tune.RunConfig(
            name=order["name"],
            storage_path=order["storage"],
            failure_config=tune.FailureConfig(max_failures=DEATHS_ALLOWED - 1),
            callbacks=[messages],
            verbose=0,
        ),
    )
    return tuner, {"workers": workers, "device": execution["device"]}


def _connect(order: dict[str, Any]) -> None:
    if order["address"] is not None:
        ray.init(address=order["address"])
        return
    check_version(ray.__version__)
    ray.init(
        address="local",
        num_cpus=order["workers"] and order["workers"] * order["execution"]["processes"],
        num_gpus=None if order["execution"]["device"] == "cuda" else 0,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def check_version(version: str) -> None:
    """Raises ValueError for a Ray that knows no token: it would accept everybody's commands."""
    if tuple(map(int, version.split(".")[:2])) < KNOWS_TOKENS:
        needed = ".".join(map(str, KNOWS_TOKENS))
        raise ValueError(f"Ray {version} cannot refuse strangers: pip install 'ray[tune]>={needed}'")


def gpu_share(workers: int, gpus: int) -> float:
    """The share of one GPU that a cell gets so that `workers` cells run at once; 0 without GPUs."""
    if gpus == 0:
        return 0.0
    return 1 / math.ceil(workers / gpus)


def _run_id(trial: Trial) -> str:
    return str(trial.config["cell"]["run_id"])


class Messages(tune.Callback):
    """Passes the events of Tune's trials on as messages."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: dict[str, Any]) -> None:
        try:
            with os.fdopen(os.dup(self._descriptor), "wb") as pipe:
                pipe.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            _end()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if "event" in result:
            kind = result["event"]
            self.send({"run_id": _run_id(trial), "kind": kind, "payload": result[kind]})

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        text = f"its trial died ({_cause(trial)}); Ray begins another one, which goes on with it"
        self.send({"run_id": _run_id(trial), "kind": "warning", "payload": {"warning": text}})

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        error = f"its trial died {DEATHS_ALLOWED} times, last with {_cause(trial)}"
        self.send({"run_id": _run_id(trial), "kind": "lost", "payload": {"status": "failed", "error": error}})


def _cause(trial: Trial) -> str:
    """The last error's type and first line."""
    error = None
    with contextlib.suppress(Exception):  # an unreadable error is no reason to fail
        error = trial.get_pickled_error()
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if error is not None else "no error reported"


def _end_with_parent() -> None:
    sys.stdin.read()
    _end()


def _end() -> None:
    """End at once, and with it a local Ray, which is in this process group."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
