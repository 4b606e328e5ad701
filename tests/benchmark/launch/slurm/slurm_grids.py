"""Grids of slow cells on a real SLURM cluster, and what must hold for them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grids
import pytest

from benchmark.run_folder import attempts
from benchmark.run_folder.attempts import folder_of, numbers
from benchmark.run_folder.files import read_json

SCRIPT = Path(__file__).parents[4] / "slurm" / "local-cluster"
WAIT_SECONDS = 150
SUITE = '''
import os
import time

import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell
from methods.algorithms.dst import DST

DESCRIPTION = "cells that take as long as a test wants"
EXHIBITS = ()
DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=160, test_limit=32)


class SlowDST(DST):
    """DST that waits after each step."""

    name = "slow_dst"

    def after_step(self, ctx):
        super().after_step(ctx)
        time.sleep(float(os.environ.get("BENCH_TEST_SLEEP", "0")))


methods.register("slow_dst", f"{__name__}:SlowDST")


def suite():
    sgd = Optimizer(lr=0.02, momentum=0.9, batch_size=32, epochs=60)
    net = Model(name="lenet-300-100")
    return [cell("slow_dst", data=DATA, model=net, optimizer=sgd, seed=s, alpha=2e-3, protocol=()) for s in range(7)]
'''


def cluster(*words: str) -> None:
    subprocess.run([str(SCRIPT), *words], check=True, timeout=90)


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@dataclass
class Submitted:
    """A grid of some seeds that a dispatcher follows."""

    suite: str
    folder: Path
    seeds: str = "0"
    sleep: float = 0.04
    keys: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def out(self) -> Path:
        return self.folder / "runs"

    def command(self, *options: str) -> list[str | Path]:
        """What `run` is called with; writes the profile."""
        profile = self.folder / "profile.toml"
        keys = {"partition": "main", "time_minutes": 5, "memory_gb": 0.5, **self.keys}
        profile.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items()))
        cells = ("--suite", self.suite, "--seeds", self.seeds, "--out", self.out, "--device", "cpu")
        return ["run", *cells, "--launcher", "slurm", "--profile", profile, *options]

    def start(self, *options: str) -> Submitted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENCH_TEST_SLEEP", str(self.sleep))
            self.process = grids.start(*self.command(*options), checkpoint_seconds=0.5)
        return self

    def finish(self) -> grids.Finished:
        assert self.process is not None
        return grids.finish(self.process)

    def at_work(self) -> Submitted:
        """Wait until a cell has a checkpoint of the newest attempt."""
        wait_for(lambda: any(self.out.glob(f"cells/*/attempts/{self.attempt:04d}/checkpoint-*.json")), "a checkpoint")
        return self

    @property
    def attempt(self) -> int:
        return max((number for cell in grids.cells(self.out) for number in numbers(cell)), default=1)

    def jobs(self) -> list[str]:
        return [json.loads(line)["job"] for line in (self.out / "jobs.jsonl").read_text().splitlines()]

    def owner(self) -> dict[str, Any]:
        (cell,) = grids.cells(self.out)
        return read_json(folder_of(cell, numbers(cell)[-1]) / "owner.json")

    def ends(self) -> list[str | None]:
        (cell,) = grids.cells(self.out)
        found = [attempts.ended(folder_of(cell, number)) for number in numbers(cell)]
        return [end and end["status"] for end in found]

    def rows(self) -> list[dict[str, Any]]:
        status = subprocess.run(
            [sys.executable, "-m", "benchmark", "status", "--out", str(self.out), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        return list(json.loads(status.stdout)["cells"])


Submit = Callable[..., Submitted]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}"
        time.sleep(0.1)
    return value


def assert_same_bits(grid: Submitted, finished: grids.Finished, alone: dict[str, Any]) -> None:
    """Every cell done once, as if it had been alone, and named once in the tables."""
    assert (finished.code, finished.stderr) == (0, ""), finished.stdout
    bits = grids.bits(grid.out)
    assert bits == {name: alone[name] for name in bits}
    rows = grid.rows()
    assert sorted(row["run_id"] for row in rows) == sorted(bits)
    assert {row["status"] for row in rows} == {"done"}
