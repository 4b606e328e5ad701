"""The commit of a checkout: of another user's too, and without running anything that it names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from grids import Bench

from benchmark.training import checkout

NOBODY = 65534
SOURCES = ("cells.py", "more.py", "still.py")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", f"safe.directory={folder}"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkout with one source file, all of it committed."""
    folder = tmp_path / "source"
    (folder / "benchmark").mkdir(parents=True)
    for name in SOURCES:
        (folder / "benchmark" / name).write_text("cells = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_checkout_has_its_commit_and_whether_a_source_was_changed(source: Path) -> None:
    head = git(source, "rev-parse", "HEAD")
    assert checkout.commit(source) == {"commit": head, "dirty": False}
    (source / "notes.txt").write_text("no source")
    assert checkout.commit(source) == {"commit": head, "dirty": False}
    (source / "benchmark" / "new.py").write_text("")
    assert checkout.commit(source) == {"commit": head, "dirty": True}
    assert checkout.problem(source) == ""


def test_a_folder_without_a_checkout_of_its_own_has_no_commit_and_no_problem(source: Path) -> None:
    assert checkout.commit(source / "benchmark") == {"commit": None, "dirty": None}
    assert checkout.problem(source / "benchmark") == ""


def test_a_checkout_of_another_user_has_its_commit(source: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a checkout to another user needs root")
    head = git(source, "rev-parse", "HEAD")
    for path in [source, *source.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    refused = subprocess.run(["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert checkout.commit(source) == {"commit": head, "dirty": False}
    assert checkout.problem(source) == ""


def test_the_repository_that_a_hook_of_git_works_in_is_not_asked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere" / "index"))
    assert checkout.commit(source)["dirty"] is False


def test_no_program_that_a_checkout_names_is_run(source: Path, tmp_path: Path) -> None:
    """A file-system monitor, a hook after the index is written, filters of its files and a submodule's own."""
    submodule = source / "benchmark" / "part"
    git(source, "clone", "--quiet", str(source), str(submodule))
    git(source, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "benchmark/part")
    git(source, "commit", "--quiet", "-m", "part")
    traces = hostile(source, tmp_path / "outer") + hostile(submodule, tmp_path / "inner")
    for folder in (source, submodule):
        for name, content in zip(SOURCES, ("cells = 2\n", "cells = 2\n", "cells = 1\n"), strict=True):
            (folder / "benchmark" / name).write_text(content)  # git has to read it, and filters what it reads
            os.utime(folder / "benchmark" / name, (0, 0))  # and writes its index when one is as before
    for trace in traces:
        trace.unlink(missing_ok=True)
    assert checkout.commit(source) == {"commit": git(source, "rev-parse", "HEAD"), "dirty": True}
    assert [trace for trace in traces if trace.exists()] == []
    plain = ["git", "-C", str(source), "status"]
    subprocess.run(plain, capture_output=True)  # ends when the filter process ends
    for folder in (source, submodule):
        git(folder, "config", "filter.other.process", "")
    subprocess.run(plain, capture_output=True)
    missing = [trace.name for trace in traces if not trace.exists()]
    assert missing == ["inner-process"], "git status runs all others"


def hostile(folder: Path, trace: Path) -> list[Path]:
    """Make git run programs in this checkout; the files that they leave."""
    names = ("monitor", "hook", "clean", "process")
    traces = [trace.with_name(f"{trace.name}-{name}") for name in names]
    hooks = trace.with_name(f"{trace.name}-hooks")
    hooks.mkdir()
    (hooks / "post-index-change").write_text(f"#!/bin/sh\ntouch {traces[1]}\n")
    (hooks / "post-index-change").chmod(0o755)
    git(folder, "config", "core.fsmonitor", f"touch {traces[0]}; false")
    git(folder, "config", "core.hooksPath", str(hooks))
    git(folder, "config", "filter.odd.name.clean", f"touch {traces[2]}; cat")
    git(folder, "config", "filter.other.process", f"touch {traces[3]}; false")
    git(folder, "config", "filter.odd.name.required", "true")
    inside = folder / git(folder, "rev-parse", "--git-path", "info/attributes")
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("cells.py filter=odd.name\nmore.py filter=other\n")
    return traces


def test_a_git_folder_that_cannot_be_read_is_said_once(source: Path, bench: Bench, tmp_path: Path) -> None:
    (source / ".git" / "HEAD").write_text("nonsense\n")
    text = checkout.problem(source)
    assert f"the source's commit will be unknown in results: git cannot read {source / '.git'} (" in text
    assert "\n" not in text
    assert checkout.commit(source) == {"commit": None, "dirty": None}


def test_a_run_warns_once_that_the_commit_is_unknown(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "problem", lambda: "the source's commit will be unknown in results: why")
    (tmp_path / "grid.py").write_text(ONE_STEP)
    finished = bench("run", "--suite", tmp_path / "grid.py", "--out", tmp_path / "runs", "--no-mlflow")
    assert finished.code == 0
    assert finished.stdout.count("warning: the source's commit will be unknown in results: why\n") == 1
    assert "--  source: the source's commit will be unknown" in bench("doctor").stdout


ONE_STEP = """
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

def suite():
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=16, test_limit=8)
    return [cell("dense", data=data, model=Model(name="lenet-300-100"), optimizer=Optimizer(batch_size=16, epochs=1))]
"""
