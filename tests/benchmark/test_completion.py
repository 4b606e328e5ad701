"""What a shell offers for `sparse-bench` when Tab is pressed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from grids import Bench

from benchmark import suites

PROGRAMS = Path(sys.executable).parent
# bash calls the function that `complete` registered for the program, with the words of the line
ASK = """
eval "$(sparse-bench --show-completion)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$(complete -p sparse-bench | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" sparse-bench
printf '%s\\n' "${COMPREPLY[@]}"
"""


def run(*command: str, **variables: str) -> str:
    environment = {**os.environ, **variables, "PATH": os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (("run", "--acc"), ["--accept-drift"]),
        (("data", ""), ["fetch", "verify"]),
        (("run", "--launcher", ""), ["local", "ray", "slurm"]),
        (("plan", "--suite", "rivals"), [name for name in suites.NAMES if name.startswith("rivals")]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes_commands_options_and_names(line: tuple[str, ...], offered: list[str]) -> None:
    assert run("bash", "-c", ASK, "bash", "sparse-bench", *line).split() == offered


def test_zsh_is_offered_the_same() -> None:
    """zsh's own part is typer's; what the program answers to it is ours."""
    answer = run("sparse-bench", _SPARSE_BENCH_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="sparse-bench st")
    assert '"status":"How far the cells of a run folder are."' in answer


def test_only_the_program_has_the_options_that_set_completion_up(bench: Bench) -> None:
    """A shell would complete the word `python` for `python -m benchmark`."""
    assert "completion" not in bench("--help").stdout
    assert "--install-completion" in run("sparse-bench", "--help")
