"""Which code computes the masked weight of trainable thresholds.

`cpp`: fused operators for the CPU (masked_weight.cpp, masked_linear.cpp), built by torch's extension loader
on first use and kept in the user's cache. `inductor`: the plain operations, compiled for a GPU. `eager`: the
plain operations, everywhere. The first two compute what eager does but for rounding. The choice is the
process's: the variable SPARSE_TRAINING_KERNELS names a path, and without it each device has its own, eager
with a warning where that cannot be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VARIABLE = "SPARSE_TRAINING_KERNELS"
PATHS = ("eager", "cpp", "inductor")
SOURCES = [Path(__file__).with_name(name) for name in ("masked_weight.cpp", "masked_linear.cpp")]
HEADER = Path(__file__).with_name("masked_weight.h")
# no contraction to fused multiply-adds: the bits are the same on every instruction set
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
WIDE = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()  # or as wide as the processor has
THREADS = ("-fopenmp",) if sys.platform == "linux" else ()  # torch's own: without it `at::parallel_for` has one thread
VARIANTS = 256  # of a function, in one process; torch gives up after 8
FUSED_TYPES = (torch.float32, torch.float64)


@functools.cache
def path(device_type: str) -> str:
    """`cpp`, `inductor` or `eager`: what computes masked weights on such a device in this process.

    Builds or loads it the first time. Raises ValueError where SPARSE_TRAINING_KERNELS names no path, and
    RuntimeError where it asks for one that this machine cannot have.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked and asked not in PATHS:
        raise ValueError(f"{VARIABLE} is '{asked}'; valid: {', '.join(PATHS)}, or unset it")
    wanted = asked or {"cpu": "cpp", "cuda": "inductor"}.get(device_type, "eager")
    if wanted == "cpp" and device_type != "cpu":
        raise RuntimeError(f"{VARIABLE} is 'cpp', which runs on the CPU alone: unset it on {device_type}")
    reason = missing(wanted)
    if reason is None:
        return wanted
    if asked:
        raise RuntimeError(f"{VARIABLE} is '{asked}', but {reason}")
    warnings.warn(f"masked weights are computed by plain operations, several times slower: {reason}", stacklevel=2)
    return "eager"


def missing(wanted: str) -> str | None:
    """Why a path cannot be had; None where it can."""
    if wanted == "cpp":
        return _without_cpp()
    return _without_inductor() if wanted == "inductor" else None


def is_fused(tensor: Tensor) -> bool:
    """Whether the C++ operators compute with this weight or threshold."""
    if tensor.dtype not in FUSED_TYPES or torch.compiler.is_compiling():
        return False
    return path("cpu" if tensor.is_cpu else tensor.device.type) == "cpp"


def are_fused(tensors: Sequence[Tensor]) -> bool:
    """Whether they do with all of these; False of none."""
    return bool(tensors) and all(is_fused(tensor) for tensor in tensors)


def is_compiled(tensor: Tensor) -> bool:
    """Whether the plain operations are compiled for it."""
    return not torch.compiler.is_compiling() and path(tensor.device.type) == "inductor"


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function by torch.compile, with sizes left open; it raises where it would go on uncompiled.

    There is a variant for each shape of thresholds, type, estimator, autocast, and for axes of length 1.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    compiled_function: Callable[..., Any] = torch.compile(function, dynamic=True, fullgraph=True)
    return compiled_function


def _without_inductor() -> str | None:
    """Why inductor cannot be had; None where it compiles."""
    try:
        compiled(torch.neg)(torch.ones(2, device="cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:  # whatever a compiler or its driver raises
        return f"torch.compile does not work here ({_first_line(error)})"
    return None


@functools.cache
def _without_cpp() -> str | None:
    """Why the operators cannot be had; None where they are loaded."""
    try:
        _load()
    except Exception as error:  # no compiler, no headers, no room, a cache that cannot be written
        return f"the C++ operators cannot be built here ({_first_line(error)})"
    return None


def _load() -> None:
    library = _cache() / f"masked_weight-{_fingerprint()}.so"
    if _loads(library):
        return
    with _locked(library.with_suffix(".lock")):
        if not _loads(library):  # somebody else may have built it while this one waited
            _build(library)


def _loads(library: Path) -> bool:
    """Load it. False where it is not there, or is no such library: it is built again then."""
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


def _build(library: Path) -> None:
    from torch.utils import cpp_extension

    compiler, *_ = shlex.split(os.environ.get("CXX", "c++")) or [""]
    if shutil.which(compiler) is None:
        asked = f"CXX names '{compiler}', which is not there: unset it" if "CXX" in os.environ else ""
        raise RuntimeError(asked or "no C++ compiler: install g++")
    print("building the kernels of masked weights, once: about 20 s", file=sys.stderr)
    for orphan in library.parent.glob("build-*"):  # of builds that were killed
        shutil.rmtree(orphan, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as folder, _with_ninja():
        cpp_extension.load(
            "masked_weight",
            [str(source) for source in SOURCES],
            build_directory=folder,
            is_python_module=False,
            extra_cflags=[*FLAGS, *WIDE, *THREADS],
            extra_ldflags=[*THREADS],
        )  # loads what it has built
        os.replace(Path(folder) / "masked_weight.so", library)


@contextlib.contextmanager
def _with_ninja() -> Iterator[None]:
    """The loader calls ninja by name, which is found beside this Python where it is not on the path."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join(filter(None, [before, str(Path(sys.executable).parent)]))
    try:
        yield
    finally:
        os.environ.pop("PATH")
        if before is not None:
            os.environ["PATH"] = before


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One build at a time; the lock ends with its process. Where a drive has no locks, two may build at once."""
    with file.open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse-training-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fingerprint() -> str:
    """Of all that the library depends on: a cache may be shared by unlike machines."""
    parts = (
        *(source.read_text() for source in (HEADER, *SOURCES)),
        torch.__version__,
        *FLAGS,
        *WIDE,
        *THREADS,
        os.environ.get("CXX", "c++"),
        *platform.libc_ver(),
        _processor(),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _first_line(error: Exception) -> str:
    """The compiler's own complaint where there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)
