"""docs/publishing.md: each of its commands, as it is printed, on one trained cell."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from one_cell import Runner, make_spec

import analysis.__main__
import analysis.build
from analysis.exhibits import verdict_tables
from analysis.exhibits.claims import table as claims
from benchmark import cli, results

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "publishing.md").read_text()
MAIN = {"benchmark": cli.main, "analysis": analysis.__main__.main}


def test_every_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results.prepare(tmp_path / "runs")
    results.remember(tmp_path / "runs", "mine", (), [make_spec(epochs=1)])
    Runner(tmp_path / "runs", make_spec(epochs=1)).run()
    results.write_tables(tmp_path / "runs")
    shutil.copytree(ROOT / "paper_figures/results/mnist-compact", tmp_path / "paper_figures/results/mnist-compact")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analysis.build, "MAKERS", (verdict_tables.makers, claims.makers))  # not every figure
    commands = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in commands for line in block.splitlines()]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)
        if words[:2] == ["python", "-m"]:  # in this process: torch and pandas are imported once
            monkeypatch.setattr(sys, "argv", words[2:])
            with pytest.raises(SystemExit) as ended:
                MAIN[words[2]]()
            assert ended.value.code == 0, (line, capfd.readouterr())
        else:
            assert subprocess.run(["bash", "-ec", line], cwd=tmp_path).returncode == 0, line
    said = capfd.readouterr().out
    assert "tables: 1; cells: 1 own, 1 new; no problem" in said
    assert "results.csv: OK" in said
    assert (tmp_path / "exhibits" / "index.html").is_file()
    assert sorted(path.name for path in (tmp_path / "published").iterdir() if path.is_file()) == [
        "CITATION.cff", "LICENSE", "README.md", "SHA256SUMS", "layers.csv", "results.csv", "traces.csv"
    ]  # fmt: skip


def test_the_line_that_the_page_shows_is_what_check_says() -> None:
    from benchmark.commands.check_rows import EXPORT

    assert f"test_accuracy is 92.7, but traces.csv says 92.71: {EXPORT}\n" in PAGE
