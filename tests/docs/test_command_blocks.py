"""Every block of README and docs/ that a reader should run does run, or the page says what it needs.

Blocks of Python run in `make test`, commands in `make test-all`: together they take minutes. A page
whose blocks another test runs is in ELSEWHERE. The command line has to accept the commands of all
blocks, marked ones included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import torch.nn.functional as F
from blocks import ALL, PAGES, ROOT, RUN, SHOWN, Block, blocks
from their_package import install
from typer.main import get_command
from typer.testing import CliRunner

import methods
from analysis.__main__ import app as analysis_app
from benchmark.cli import app as benchmark_app
from methods import budgets, scores

ELSEWHERE = {
    "docs/checkpoints.md": "tests/methods/release/test_checkpoints_page.py",
    "docs/clusters.md": "tests/test_clusters_page.py",
    "docs/other-libraries.md": "tests/libraries/test_training_loops.py",
    "docs/publishing.md": "tests/test_publishing_page.py",
}
HERE = {f"docs/{name}.md" for name in ("adding-a-method", "command-line", "index", "plug-ins", "tracking")}
MORE = [ROOT / "CONTRIBUTING.md", ROOT / "paper_figures/results/README.md"]
COMMANDS: dict[str, Any] = {"benchmark": get_command(benchmark_app), "analysis": get_command(analysis_app)}
OPEN = [block for block in ALL if block.page not in ELSEWHERE and not block.marked]
PYTHON = list(dict.fromkeys(block.page for block in OPEN if block.language == "python"))


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in (*RUN, *SHOWN)


def test_the_blocks_of_a_page_are_run_here_or_by_the_test_that_is_named() -> None:
    found = {block.page for block in OPEN if block.language in ("sh", "console")}
    assert found == HERE, "run the commands of this page in a test, or say beside them what they need"
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


def test_no_block_of_python_is_marked() -> None:
    marked = [block for block in ALL if block.marked and block.language == "python" and block.page not in ELSEWHERE]
    assert marked == [], "Python runs anywhere"


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda page: page.name)
def test_every_command_is_one_that_the_command_line_takes(page: Path) -> None:
    """The options of marked blocks too: parsed, and not run."""
    for block in blocks(page):
        for words in block.commands:
            if words[0] == "make":
                assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
            else:
                package = words[words.index("-m") + 1]
                parse(COMMANDS[package], words[words.index("-m") + 2 :])


NOT_TRAINED = [block for block in ALL if block.marked] + [block for page in MORE for block in blocks(page)]
RUNS = [tuple(w[3:]) for block in NOT_TRAINED for w in block.commands if w[1:4] == ["-m", "benchmark", "run"]]


def with_committed_cells(words: tuple[str, ...]) -> tuple[str, ...]:
    at = words.index("--done-in") if "--done-in" in words else len(words)
    return words[:at] + words[at + 2 :]


@pytest.mark.parametrize("words", [with_committed_cells(words) for words in RUNS], ids=" ".join)
def test_a_run_that_no_test_makes_selects_cells(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of marked blocks, and of the commands behind the committed rows: the cells are listed, and not trained."""
    workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    with methods.registry.temporary():
        done = CliRunner().invoke(benchmark_app, [*words, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["cells"]


def parse(command: Any, words: list[str]) -> None:
    """Raise click.UsageError for an unknown command or option, or a wrong value."""
    if not hasattr(command, "commands"):
        command.make_context(command.name, list(words))
    elif words and words[0] in command.commands:
        parse(command.commands[words[0]], words[1:])
    elif not (command.invoke_without_command and words[0].startswith("-")):
        raise click.UsageError(f"no such command: {words[0]}")


@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the order of the page, each block with the names that the blocks before it define."""
    workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("printed")
    monkeypatch.setitem(sys.modules, "printed", module)
    vars(module).update(GIVEN.get(page, {}))
    with methods.registry.temporary():
        for block in OPEN:
            if (block.page, block.language) == (page, "python"):
                exec(compile(block.text, page, "exec", dont_inherit=True), vars(module))
        CHECKS.get(page, lambda _: None)(module)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 4))


GIVEN: dict[str, dict[str, Any]] = {  # names that a block of a page leaves to the reader
    "README.md": {
        "torch": torch,
        "F": F,
        "dataclass": dataclass,
        "budgets": budgets,
        "scores": scores,
        "model": network(),
        "steps": 1,
        "per_epoch": 1,
        "x": torch.zeros(8, 20),
        "y": torch.zeros(8, dtype=torch.int64),
    },
}


def the_class_of_the_readme_prunes(module: Any) -> None:
    attached = methods.attach(model := network(), "one_shot", total_steps=2, steps_per_epoch=2, density=0.2)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1))
    for _ in range(2):
        model(torch.ones(1, 20)).sum().backward()
        attached.step()
    assert attached.density() == pytest.approx(0.2, abs=0.01)


def the_suite_of_the_page_has_its_cells(module: Any) -> None:
    assert [spec.method["name"] for spec in module.suite()] == ["static", "set", "one_shot"] * 2


CHECKS = {
    "README.md": the_class_of_the_readme_prunes,
    "docs/adding-a-method.md": the_suite_of_the_page_has_its_cells,
}


def workplace(folder: Path) -> None:
    """The root of a checkout, as far as commands of the pages read it."""
    for name in ("analysis", "benchmark", "methods", "docs", "paper_figures"):
        (folder / name).symlink_to(ROOT / name)
    if "BENCH_TEST_DATA" in os.environ:
        (folder / "data").symlink_to(os.environ["BENCH_TEST_DATA"])


def shell(script: str, folder: Path, *, mlflow: bool = False, packages: Path | None = None) -> str:
    """What a script prints when it is run from the root of a checkout with this Python as `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(packages or folder), "COLUMNS": "200"}
    if mlflow:
        environment.pop("BENCH_NO_MLFLOW", None)
    line = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scripts(page: str) -> list[str]:
    return [block.text for block in OPEN if block.page == page and block.language == "sh"]


@pytest.mark.slow
@pytest.mark.rare
def test_the_first_grid_runs(tmp_path: Path) -> None:
    workplace(tmp_path)
    shell("\n".join(scripts("docs/index.md")), tmp_path)
    assert (tmp_path / "runs-first/results.csv").read_text().count(",done,") == 2
    assert (tmp_path / "runs-first/exhibits/index.html").is_file()


@pytest.mark.slow
@pytest.mark.rare
def test_the_method_of_the_page_is_checked_and_compared(tmp_path: Path) -> None:
    workplace(tmp_path)
    printed = shell("\n".join(scripts("docs/adding-a-method.md")), tmp_path)
    assert "one_shot" in printed
    assert (tmp_path / "runs-example/results.csv").read_text().count(",done,") == 6


@pytest.mark.slow
@pytest.mark.rare
def test_files_that_new_writes_and_an_installed_package_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    workplace(folder)
    packages = install(tmp_path / "theirs")
    printed = shell("\n".join(scripts("docs/plug-ins.md")), folder, packages=packages)
    assert "their_suite" in printed
    assert ",done," in (folder / "runs-ours/results.csv").read_text()
    assert (folder / "runs-theirs/exhibits/index.html").is_file()


@pytest.mark.slow
@pytest.mark.rare
def test_mlflow_is_brought_up_to_date_shown_and_read(tmp_path: Path) -> None:
    workplace(tmp_path)
    grid = "python -m benchmark run --where model=lenet-300-100 --where method=dense --seeds 0 --no-mlflow\n"
    synced, server, read = scripts("docs/tracking.md")
    shell(grid + synced, tmp_path, mlflow=True)
    shell(f"{server.strip()} > ui.log 2>&1 &\necho $! > pid", tmp_path, mlflow=True)
    try:
        assert answer("http://127.0.0.1:5000") == 200
    finally:
        shell("kill $(cat pid)", tmp_path)
    shell(read, tmp_path, mlflow=True)
    assert ",done," in (tmp_path / "tables/results.csv").read_text()


def answer(address: str) -> int:
    """The status with which a server answers, once it does."""
    end = time.monotonic() + 300  # seconds; MLflow's server imports for half a minute on a busy machine
    while time.monotonic() < end:
        try:
            return int(urllib.request.urlopen(address).status)
        except OSError:
            time.sleep(0.5)
    return 0


def console(command: str) -> tuple[str, list[str]]:
    """The block of command-line.md that shows this command: the command, and the lines that it prints."""
    found = [block.text for block in OPEN if block.page == "docs/command-line.md" and block.language == "console"]
    (text,) = [text for text in found if f" {command} " in text]
    line, _, shown = text.removeprefix("$ ").partition("\n")
    return line, shown.splitlines()


def test_a_search_prints_what_the_page_shows(tmp_path: Path) -> None:
    workplace(tmp_path)
    command, shown = console("match")
    printed = [line.rstrip() for line in shell(command, tmp_path).splitlines()]
    gap = shown.index("…")
    assert printed[:gap] == shown[:gap]
    assert printed[gap - len(shown) + 1 :] == shown[gap + 1 :]


def test_a_plan_lists_the_cells_that_the_page_shows(tmp_path: Path) -> None:
    workplace(tmp_path)
    command, shown = console("plan")
    lines = shell(command, tmp_path).splitlines()
    assert lines[:4] == shown[:4]
    assert lines[4].startswith("about ")


@pytest.mark.parametrize("words", ["benchmark", "benchmark speed", "benchmark data", "analysis"])
def test_the_list_of_commands_has_whole_sentences_in_80_columns(words: str) -> None:
    program, *inner = words.split()
    command = COMMANDS[program] if not inner else COMMANDS[program].commands[inner[0]]
    text = command.get_help(
        click.Context(command, info_name=words, terminal_width=78)
    )  # 80 less the two that click leaves free
    lines = text.partition("Commands:\n")[2].splitlines()
    assert len(lines) == len(command.commands), "one line per command"
    assert [line for line in lines if not line.endswith(".") or line.endswith("...") or len(line) > 80] == []
