"""The backend that computes with masked weights, chosen here for each device.

`cpp`: C++ operators for the CPU, built on first use and kept in the user's cache. `inductor`: the
plain operations, compiled by torch, for a GPU. `eager`: the plain operations, everywhere. The first
two compute what `eager` computes, up to rounding. The environment variable SPARSE_TRAINING_KERNELS
requests a backend for the whole process. Without it each device has its own backend, and `eager`,
with a warning, where that one is unavailable.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

from methods.kernels.backend import Backend
from methods.kernels.cpp import Cpp
from methods.kernels.eager import Differentiable, Eager
from methods.kernels.inductor import Inductor

VARIABLE = "SPARSE_TRAINING_KERNELS"
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Eager(), Cpp(), Inductor())}
DIFFERENTIABLE = Differentiable()
OF_DEVICE = {"cpu": "cpp", "cuda": "inductor"}
_transforms_are_active: Callable[[], bool] = torch._C._are_functorch_transforms_active


def backend_for(first: Tensor, *others: Tensor) -> Backend:
    """The backend that computes with these weights or thresholds, all of one model.

    `eager` where one of them has a type that the device's backend cannot compute with. Inside
    torch.compile, which traces it, inside transforms of torch.func and under forward-mode
    differentiation, it is the differentiable form of the plain operations.
    """
    if torch.compiler.is_compiling() or _transforms_are_active() or forward_ad._current_level >= 0:
        return DIFFERENTIABLE
    backend = BACKENDS[path("cpu" if first.is_cpu else first.device.type)]
    return backend if all(map(backend.supports, (first, *others))) else BACKENDS["eager"]


def requested(environment: Mapping[str, str] = os.environ) -> str:
    """The backend that SPARSE_TRAINING_KERNELS names; empty where it is not set.

    Raises ValueError where it names no backend.
    """
    name = environment.get(VARIABLE, "")
    if name and name not in BACKENDS:
        raise ValueError(f"{VARIABLE} is '{name}'; valid: {', '.join(BACKENDS)}, or unset it")
    return name


@functools.cache
def path(device_type: str) -> str:
    """The backend for a kind of device in this process: `cpp`, `inductor` or `eager`.

    Builds or loads the backend on the first call. Raises ValueError where SPARSE_TRAINING_KERNELS
    names no backend, and RuntimeError where it requests one that is unavailable on this machine.
    """
    named = requested()
    wanted = named or OF_DEVICE.get(device_type, "eager")
    if wanted == "cpp" and device_type != "cpu":
        raise RuntimeError(f"{VARIABLE} is 'cpp', which runs only on the CPU: unset it on {device_type}")
    reason = missing(wanted)
    if reason is None:
        return wanted
    if named:
        raise RuntimeError(f"{VARIABLE} is '{named}', but {reason}")
    warnings.warn(f"masked weights are computed by plain operations, several times slower: {reason}", stacklevel=2)
    return "eager"


def missing(name: str) -> str | None:
    """Why a backend is unavailable on this machine; None where it is available."""
    return BACKENDS[name].missing()
