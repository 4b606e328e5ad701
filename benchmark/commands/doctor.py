"""What this machine has, and what a run would miss."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmark import data, results
from benchmark.commands.output import emit
from benchmark.terminal import say
from benchmark.training import checkout


def doctor(out: Path, data_dir: Path, json_output: bool) -> int:
    """Print one line per check; the exit code, 1 if something that a run needs is missing."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: sys.version.split()[0],
        "torch": _torch,
        "torchvision": _torchvision,
        "device": _device,
        "kernels": _kernels,
        "bfloat16": _bfloat16,
        "cores": lambda: f"{os.cpu_count()}",
        "source": _source,
        "out": lambda: _out(out),
        **{f"data {name}": _checked(name, data_dir) for name in data.available()},
    }
    found = {name: _outcome(check) for name, check in checks.items()}
    needed = ("torch", "out")
    code = 1 if any(not found[name][0] for name in needed) else 0
    if json_output:
        emit({"checks": {name: {"ok": ok, "text": text} for name, (ok, text) in found.items()}, "exit_code": code})
    else:
        for name, (ok, text) in found.items():
            say(f"{'ok ' if ok else '-- '} {name}: {text}")
    return code


def _outcome(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:  # whatever is wrong, it is reported
        return False, (str(error).splitlines() or [type(error).__name__])[0]


def _source() -> str:
    if problem := checkout.problem():
        raise RuntimeError(problem)
    source = checkout.commit()
    return f"commit {source['commit']}, dirty: {source['dirty']}"


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _torchvision() -> str:
    from benchmark.data.torchvision_import import import_torchvision

    return str(import_torchvision().__version__)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "cpu (torch sees no GPU)"


def _kernels() -> str:
    from methods import kernels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it says is said here
        path = kernels.path("cpu")
    if path == "eager" and (reason := kernels.missing("cpp")) and not os.environ.get(kernels.VARIABLE):
        raise RuntimeError(
            f"masked weights on the CPU are computed by plain operations, several times slower: {reason}"
        )
    return f"masked weights on the CPU: {path}"


def _bfloat16() -> str:
    from benchmark.training.engine import cpu_runs_bfloat16_lstms

    if not cpu_runs_bfloat16_lstms():
        raise RuntimeError("this CPU trains all models in bfloat16 except LSTMs (oneDNN needs AVX-512 for those)")
    return "this CPU trains all models in bfloat16"


def _out(out: Path) -> str:
    results.check(out)
    nearest = next(folder for folder in [out.resolve(), *out.resolve().parents] if folder.exists())
    if not os.access(nearest, os.W_OK):
        raise results.FolderError(f"{out} cannot be written")
    return f"{out}, {shutil.disk_usage(nearest).free / 2**30:.0f} GiB free"


def _checked(name: str, data_dir: Path) -> Callable[[], str]:
    return lambda: f"files verified: {len(data.verify(name, data_dir))}"
