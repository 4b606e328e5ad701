"""What the leader and the followers of a cell do alike: they begin its training, and compare what they hold."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from benchmark import data, environment
from benchmark.data.tensors import Dataset
from benchmark.distributed import Group
from benchmark.engine import Engine
from benchmark.spec import Data, RunSpec, SpecError
from benchmark.train import Training, digest
from methods import kernels


def begin(spec: RunSpec, data_dir: Path, device: str, group: Group) -> Training:
    """A cell's training before its first step."""
    return Training(spec, _dataset(spec.data, data_dir, device), group)


def check_same(training: Training, group: Group) -> None:
    """Raises RuntimeError where weights, masks, thresholds or the optimizer's state differ between processes."""
    if group.size > 1:
        group.check_same(digest(training.model, training.optimizer.state_dict(), training.attached.state_dict()))


def surroundings(spec: RunSpec, data_dir: Path, device_name: str, group: Group) -> dict[str, Any]:
    """The environment of an attempt. Raises DataError; SpecError where kernels cannot be had."""
    device = torch.device(device_name)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else environment.cpu_name()
    return environment.describe(
        device=device.type,
        device_name=name,
        threads=torch.get_num_threads(),
        kernel_path=kernel_path(device),
        data=_fingerprint(spec.data.name, data_dir),
        processes=group.size,
        engine=str(Engine(spec, device.type)),
    )


def kernel_path(device: torch.device) -> str:
    """What computes masked weights there. Raises SpecError."""
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
