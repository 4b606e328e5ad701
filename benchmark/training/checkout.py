"""The commit of the source tree, from a checkout that may belong to somebody else.

git refuses a checkout of another user unless it is named in `safe.directory`, because a checkout's
own configuration names programs that git runs. Here nothing of it runs: not the file-system
monitor, not hooks, not filters of files, not submodules, not the transports of a partial clone. The
index is not written. What is left is git itself, which parses a stranger's index and objects.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2]
SOURCES = ("methods", "benchmark", "analysis", "pyproject.toml")
PATIENCE_SECONDS = 20
ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",  # so the index is not written, and no hook runs after that
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks, by a program that it names
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


class GitError(Exception):
    """git does not answer about the checkout: one line."""


def commit(folder: Path = FOLDER) -> dict[str, Any]:
    """{commit, dirty} of the source tree, new source files included.

    Both are None if it is no git checkout of this project, or git cannot read it.
    """
    try:
        top, head = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
    except (GitError, ValueError):
        return {"commit": None, "dirty": None}
    if top != str(folder):
        return {"commit": None, "dirty": None}
    try:
        words = ("status", "--porcelain", "--ignore-submodules=all", "--", *SOURCES)
        changes = _git(folder, *words, settings=_without_filters(folder))
    except GitError:
        return {"commit": head, "dirty": None}
    return {"commit": head, "dirty": bool(changes)}


@functools.cache
def problem(folder: Path = FOLDER) -> str:
    """Why the commit is unknown although the source tree has a `.git`, in one line; else empty."""
    if not os.path.lexists(folder / ".git"):
        return ""
    try:
        _git(folder, "rev-parse", "HEAD")
    except GitError as error:
        return f"the source's commit will be unknown in results: git cannot read {folder / '.git'} ({error})"
    return ""


def _without_filters(folder: Path) -> dict[str, str]:
    """Settings that empty every filter that the configuration defines: `status` would run them."""
    try:
        names = _git(folder, "config", "--null", "--name-only", "--get-regexp", r"^filter\.").split("\0")
    except GitError:  # it has none
        return {}
    filters = {name.rpartition(".")[0] for name in names if name}
    empty = {f"{name}.{program}": "" for name in filters for program in ("clean", "smudge", "process")}
    return empty | {f"{name}.required": "false" for name in filters}


def _git(folder: Path, *words: str, settings: dict[str, str] | None = None) -> str:
    own = {"safe.directory": str(folder), "core.fsmonitor": "false", "core.hooksPath": os.devnull, **(settings or {})}
    pairs = {f"GIT_CONFIG_{kind}_{at}": text for at, pair in enumerate(own.items()) for kind, text in _named(pair)}
    kept = (name for name in os.environ if not name.startswith("GIT_") or name == "GIT_EXEC_PATH")
    environment = {name: os.environ[name] for name in kept}  # without the repository that a hook of git works in
    environment |= {**ENVIRONMENT, "GIT_CONFIG_COUNT": str(len(own)), **pairs}
    command = ["git", "--no-pager", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            env=environment,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(type(error).__name__) from error
    if done.returncode:
        raise GitError((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[0])
    return done.stdout.strip()


def _named(pair: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("KEY", pair[0]), ("VALUE", pair[1])
