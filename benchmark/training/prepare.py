"""What each process of a cell does: build its training, describe and compare what it holds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from benchmark import data
from benchmark.data.tensors import Dataset
from benchmark.spec import Data, RunSpec, SpecError
from benchmark.training import blame, environment
from benchmark.training.engine import Engine
from benchmark.training.execution import Execution
from benchmark.training.loop import Training, digest
from benchmark.training.process_group import Group
from methods import kernels


def prepare_training(spec: RunSpec, execution: Execution, group: Group, engine: Engine) -> Training:
    """A cell's training before its first step. Raises SpecError and DataError."""
    dataset = _dataset(spec.data, execution.data_dir, execution.device)
    return Training(spec, dataset, group, engine)


def check_same(training: Training, group: Group) -> None:
    """Raise RuntimeError if processes differ in weights, masks, thresholds or optimizer."""
    if group.size > 1:
        group.check_same(digest(training.model, training.optimizer.state_dict(), training.attached.state_dict()))


def environment_of(spec: RunSpec, execution: Execution, group: Group, engine: Engine) -> dict[str, Any]:
    """The environment of an attempt at a cell.

    Raises DataError, SpecError where a kernel cannot be had, and ValueError for a plug-in that
    cannot be loaded.
    """
    device = torch.device(execution.device)
    return environment.describe(
        device=device.type,
        device_name=device_name(device),
        threads=torch.get_num_threads(),
        kernel_path=kernel_path(device),
        data=_fingerprint(spec.data.name, execution.data_dir),
        processes=group.size,
        engine=engine.to_dict(),
        plug_ins=blame.origins(spec),
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else environment.cpu_name()


def kernel_path(device: torch.device) -> str:
    """What computes masked weights on a device.

    Raises SpecError where the requested path cannot be had.
    """
    try:
        return kernels.path(device.type)
    except (ValueError, RuntimeError) as error:
        raise SpecError(str(error)) from error


@functools.lru_cache(maxsize=4)
def _fingerprint(name: str, data_dir: Path) -> str:
    return data.fingerprint(name, data_dir)


@functools.lru_cache(maxsize=2)
def _dataset(spec: Data, data_dir: Path, device: str) -> Dataset:
    return data.load(spec, data_dir=data_dir, device=torch.device(device))
