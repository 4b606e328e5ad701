"""Builds of the kernels beside each other, where two nodes share a cache and nothing can be locked."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from torch.utils import cpp_extension

from methods.kernels import build


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the library would be. The compiler only writes an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", sys.executable)

    def compiled(name: str, sources: list[str], *, build_directory: str, **options: object) -> None:
        (Path(build_directory) / f"{name}.so").touch()

    monkeypatch.setattr(cpp_extension, "load", compiled)
    return build.library()


def test_a_build_that_another_node_has_begun_is_left_to_it(library: Path) -> None:
    """And what a build left that was killed long ago is removed."""
    own, orphan = (library.parent / f"build-{library.stem}-{name}" for name in ("now", "before"))
    for folder in (own, orphan):
        folder.mkdir(parents=True)
    long_ago = time.time() - 2 * 3600
    os.utime(orphan, (long_ago, long_ago))
    build.load()
    assert library.exists()
    assert (own.exists(), orphan.exists()) == (True, False)


def test_a_build_that_fails_is_forgiven_if_another_node_has_the_library(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [False, False, True]

    def fail(_: Path) -> None:
        raise RuntimeError("the compiler broke")

    monkeypatch.setattr(build, "_build", fail)
    monkeypatch.setattr(build, "_loads", lambda _: loaded.pop(0))
    build.load()
    loaded += [False, False, False]
    with pytest.raises(RuntimeError, match="the compiler broke"):
        build.load()
