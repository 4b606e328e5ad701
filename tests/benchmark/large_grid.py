"""A run folder of 10,000 stub cells, and what the command line needs for it: seconds and peak memory.

    python tests/benchmark/large_grid.py FOLDER [CELLS]

One cell is trained; the others get its files under their own names, sealed as the program seals them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import results, suites
from benchmark.run_folder.attempts import Observer, folder_of
from benchmark.run_folder.files import read_json, sealed
from benchmark.spec import RunSpec
from benchmark.training.cell import execute
from benchmark.training.execution import Execution

CELLS = 10_000
SUITE = """
import dataclasses

from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 2, 2), train_limit=8, test_limit=4)
SGD = Optimizer(lr=0.1, batch_size=8)


def suite():
    one = cell("dense", data=DATA, model=Model(name="lenet-300-100"), optimizer=SGD, protocol=())
    return [dataclasses.replace(one, seed=seed) for seed in range({cells})]
"""


def write_suite(path: Path, cells: int) -> str:
    """A suite file of so many cells of one step each. Returns its path."""
    path.write_text(SUITE.format(cells=cells))
    return str(path)


def build(suite: str, out: Path, *, begin: int = 0, done: int | None = None) -> list[RunSpec]:
    """A run folder with the suite's cells, those from `begin` up to `done` of them done. Returns all specs."""
    results.prepare(out)
    loaded = suites.load(suite)
    results.remember(out, loaded.name, loaded.exhibits, loaded.specs)
    first, *others = loaded.specs[begin:done]
    outcome = execute(
        first, Execution(out=out, data_dir=out), observer=Observer(), report=lambda _: None, stop=threading.Event()
    )
    assert outcome.status == "done"
    trained = out / "cells" / first.run_id
    files = {path.name: path.read_bytes() for path in folder_of(trained, 1).iterdir() if path.suffix == ".json"}
    files |= {name: (trained / name).read_bytes() for name in ("metrics.jsonl", "environment.json")}
    result = read_json(trained / "result.json")
    for spec in others:
        _copy(out / "cells" / spec.run_id, spec, files, result)
    return list(loaded.specs)


def _copy(cell: Path, spec: RunSpec, files: dict[str, bytes], result: dict[str, Any]) -> None:
    attempt = folder_of(cell, 1)
    attempt.mkdir(parents=True)
    (cell / "spec.json").write_text(json.dumps(spec.to_dict(), indent=1))
    (cell / "environment.json").write_bytes(files["environment.json"])
    (cell / "metrics.jsonl").write_bytes(files["metrics.jsonl"])
    for name in ("owner.json", "end.json", "environment.json", "metrics.jsonl"):
        (attempt / name).write_bytes(files[name])
    (attempt / "heartbeat").touch()
    measured = {**result["measured"], "test_accuracy": float(spec.seed % 100)}
    changed = sealed({**result, "run_id": spec.run_id, "measured": measured})
    (attempt / "result.json").write_text(json.dumps(changed, indent=1) + "\n")
    (cell / "result.json").hardlink_to(attempt / "result.json")


@dataclass(frozen=True)
class Cost:
    """What one command needed. peak_bytes: of its largest process."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


def cost(*words: str | Path) -> Cost:
    """Run a command of Python's as a process of its own."""
    source = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, *sys.argv[1:]])\n"
        "kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print('peak', kib, file=sys.stderr)\n"
        "sys.exit(done.returncode)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", source, *map(str, words)], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    stderr, _, kib = done.stderr.rpartition("peak ")
    return Cost(done.returncode, done.stdout, stderr, seconds, 1024 * int(kib))


def main() -> None:
    folder, cells = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else CELLS
    folder.mkdir(parents=True, exist_ok=True)
    suite, out = write_suite(folder / "stubs.py", cells), folder / "runs"
    if not out.exists():
        build(suite, out)
    commands: dict[str, tuple[str | Path, ...]] = {
        "import torch": ("-c", "import torch"),
        "plan, nothing done": ("-m", "benchmark", "plan", "--suite", suite, "--out", folder / "none"),
        "plan, all done": ("-m", "benchmark", "plan", "--suite", suite, "--out", out),
        "status": ("-m", "benchmark", "status", "--out", out),
        "run again": ("-m", "benchmark", "run", "--no-mlflow", "--suite", suite, "--out", out),
        "export": ("-m", "benchmark", "export", "--out", out),
    }
    for name, command in commands.items():
        costs = [cost(*command) for _ in range(3)]
        best = min(costs, key=lambda each: each.seconds)
        assert best.code == 0, best.stderr
        print(f"{name:20} {best.seconds:6.2f} s  {best.peak_bytes / 2**20:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
