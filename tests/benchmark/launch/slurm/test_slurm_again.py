"""On a real SLURM cluster: cells trained again after scancel, and grids in folders of any name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from slurm_grids import Submit, Submitted, assert_same_bits, slurm, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.usefixtures("one_thread")]
FOLDER = 'a [b]\'s "c" $HOME `d` ;&#1 é😀'
GREETING = "two words 'q' \"d\" $HOME `x` \\ %j"


def test_a_cancelled_cell_survives_the_time_limit_of_its_next_job(submit: Submit, alone: dict[str, Any]) -> None:
    """Detached: nobody would submit another job. Meanwhile `status` asks SLURM about both jobs."""
    grid = submit(sleep=0.15).at_work()
    slurm("scancel", grid.jobs()[0])
    assert grid.finish().code == 1
    assert grid.ends() == ["interrupted", "cancelled"]
    grid.keys = {"time_minutes": 1}
    finished = grid.start("--detach").finish()
    wait_for(lambda: grid.rows()[0]["status"] != "cancelled" and len(grid.ends()) > 3, "a second start of that job")
    wait_for(lambda: grid.rows()[0]["status"] == "done", "its end")
    assert grid.ends()[:3] == ["interrupted", "cancelled", "interrupted"]
    assert grid.ends().count("cancelled") == 1, "`status` has not taken a job that waits for a cancelled one"
    assert len(grid.jobs()) == 2
    assert_same_bits(grid, finished, alone)


def test_a_folder_and_a_profile_may_hold_any_printable_text(
    nodes: None, suite: str, tmp_path: Path, alone: dict[str, Any]
) -> None:
    folder, greeting = tmp_path / FOLDER, tmp_path / "greeting"
    folder.mkdir()
    keys = {"environment.GREETING": GREETING, "setup": [f'printf %s "$GREETING" > {shlex.quote(str(greeting))}']}
    grid = Submitted(suite, folder, seeds="0-1", sleep=0, keys=keys).start()
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert greeting.read_text() == GREETING
    assert sorted(path.name for path in folder.iterdir()) == ["profile.toml", "runs"]
