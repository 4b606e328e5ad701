"""Builds the C++ operators in this folder on first use, with torch's extension loader.

The library is kept in the user's cache. Its name contains a hash of its sources, its flags, torch's
version and the processor, so different machines may share a cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

SOURCES = [Path(__file__).with_name(name) for name in ("masked_weight.cpp", "masked_linear.cpp", "kept_linear.cpp")]
HEADER = Path(__file__).with_name("masked_weight.h")
# no contraction to fused multiply-adds: the bits are the same on every instruction set
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
# an upper bound: -march=native limits vectors to what the processor has
WIDE = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()
# as torch is built: without it `at::parallel_for` has one thread
THREADS = ("-fopenmp",) if sys.platform == "linux" else ()
ORPHAN_SECONDS = 3600.0


def load() -> None:
    """Load the operators into torch; build them first where the cache does not have them.

    Raises any error of the compiler, the loader or the file system; `first_complaint` shortens it.
    """
    file = library()
    file.parent.mkdir(parents=True, exist_ok=True)
    if _loads(file):
        return
    with _locked(file.with_suffix(".lock")):
        if not _loads(file):  # another process may have built it while this one waited
            try:
                _build(file)
            except Exception:
                if not _loads(file):  # or, where nothing can be locked, while this one built it too
                    raise


def library() -> Path:
    """The library's file in the user's cache, built or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sparse-training-bench" / f"masked_weight-{_fingerprint()}.so"


def _loads(library: Path) -> bool:
    """Load it. False where it is not there or is damaged: it is then built again."""
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


def _build(library: Path) -> None:
    from torch.utils import cpp_extension

    try:
        compiler, *_ = shlex.split(os.environ.get("CXX", "c++")) or [""]
    except ValueError as error:
        raise RuntimeError(f"CXX is no command ({error}): unset it") from error
    if shutil.which(compiler) is None:
        named = f"CXX names '{compiler}', which is not there: unset it" if "CXX" in os.environ else ""
        raise RuntimeError(named or "no C++ compiler: install g++")
    print("building the kernels of masked weights, once: about 20 s", file=sys.stderr)
    prefix = f"build-{library.stem}-"  # other versions, and other processors that share this folder, build beside it
    for left in library.parent.glob(f"{prefix}*"):
        _remove_orphan(left)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=prefix) as folder, _with_ninja():
        cpp_extension.load(
            "masked_weight",
            [str(source) for source in SOURCES],
            build_directory=folder,
            is_python_module=False,
            extra_cflags=[*FLAGS, *WIDE, *THREADS],
            extra_ldflags=[*THREADS],
        )  # loads what it has built
        os.replace(Path(folder) / "masked_weight.so", library)


def _remove_orphan(folder: Path) -> None:
    """Remove what a build that was killed has left, but not what another node builds now."""
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime > ORPHAN_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _with_ninja() -> Iterator[None]:
    """The loader calls ninja by name: look for it beside this Python too."""
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
    """One build at a time. The lock ends with its process.

    On a file system without locks two processes may build at once.
    """
    with file.open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """A hash of everything that the library depends on."""
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


def first_complaint(error: Exception) -> str:
    """One line of an error: the compiler's own complaint where there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)
