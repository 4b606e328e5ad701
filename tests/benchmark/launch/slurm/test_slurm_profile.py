"""Profiles of clusters, and the script that a grid would be submitted with: no SLURM needed."""

from __future__ import annotations

from pathlib import Path

import grids
import pytest
from grids import Bench, Grid

from benchmark.launch import choice as launch
from benchmark.launch.slurm.launcher import job_name
from benchmark.launch.slurm.profile import Profile, read
from benchmark.spec import SpecError

PROFILES = sorted((Path(__file__).parents[4] / "slurm").glob("*.toml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_the_profiles_in_the_repository_hold(path: Path) -> None:
    assert read(path).partition


def test_there_are_profiles_to_start_from() -> None:
    assert {path.stem for path in PROFILES} == {"cpu", "gpu", "local"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_minutes = 5\npartitoin = 'x'", "unknown key 'partitoin': did you mean 'partition'"),
        ("partition = 'x'", "time_minutes is missing: the time limit of a job"),
        ("time_minutes = '5'", "time_minutes is '5', not a whole number"),
        ("time_minutes = true", "time_minutes is True, not a whole number"),
        ("time_minutes = 0", "time_minutes is 0, less than 1"),
        ("time_minutes = 5\nmemory_gb = -1", "memory_gb is -1, less than 0"),
        *(
            (f"time_minutes = 5\nmemory_gb = {text}", f"memory_gb is {text}, less than 1 MB: SLURM reads 0 as all of")
            for text in ("0", "0.0", "0.0003")
        ),
        ("time_minutes = 5\nsetup = 'module load x'", "setup is 'module load x', not a list of texts"),
        ("time_minutes = 5\nsetup = [1]", r"setup is \[1\], not a list of texts"),
        ("time_minutes = 5\nenvironment = {A = 1}", "environment is {'A': 1}, not a table of texts"),
        ("time_minutes = ", "no TOML: "),
        *(
            (f"time_minutes = 5\nmemory_gb = {text}", "memory_gb is (nan|inf|1e\\+300), not a number up to 2147483647")
            for text in ("nan", "inf", "1e300")
        ),
        ("time_minutes = 1000000000000", "time_minutes is 1000000000000, not a number up to 2147483647"),
        ("time_minutes = 5\nmemory_gb = -inf", "memory_gb is -inf, less than 0"),
    ],
)
def test_a_profile_that_does_not_hold_is_named_with_its_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(text)
    with pytest.raises(SpecError, match=said) as caught:
        read(tmp_path / "ours.toml")
    assert str(caught.value).startswith(f"--profile {tmp_path / 'ours.toml'}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"ours\.toml: No such file"):
        read(tmp_path / "ours.toml")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (launch.Choice(name="pbs"), "unknown launcher 'pbs'"),
        (launch.Choice(name="slurm"), "--launcher slurm needs --profile FILE.toml"),
        (launch.Choice(profile=Path("x.toml")), "--profile is of --launcher slurm"),
        (launch.Choice(detach=True), "--detach is of --launcher slurm"),
        (launch.Choice(ray_address="auto"), "--ray-address is of --launcher ray"),
    ],
)
def test_options_of_another_launcher_are_refused(choice: launch.Choice, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        launch.check(choice)


def test_a_job_has_a_worker_for_each_gpu_or_core_but_no_more_than_cells() -> None:
    assert Profile(time_minutes=5, cpus_per_task=8, cells_per_job=4).workers() == 4
    assert Profile(time_minutes=5, cpus_per_task=2, cells_per_job=4).workers() == 2
    assert Profile(time_minutes=5, cpus_per_task=8, gpus_per_task=1, cells_per_job=4).workers() == 1
    assert Profile(time_minutes=5, gpus_per_task=8, cells_per_job=4).workers(processes_per_cell=4) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes-per-cell", "8"], "a job needs 8 GPUs (workers: 1), and the profile has gpus_per_task = 4"),
        (["--processes-per-cell", "3", "--workers", "2"], "a job needs 6 GPUs (workers: 2)"),
        (["--processes-per-cell", "4", "--workers", "9"], "a job needs 8 GPUs (workers: 2)"),
        (["--processes-per-cell", "2", "--workers", "9"], ""),
        (["--processes-per-cell", "8", "--device", "cpu"], ""),
    ],
)
def test_processes_of_cells_do_not_share_gpus(options: list[str], said: str, bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    suite = grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 2}, methods=["dst"])
    (tmp_path / "ours.toml").write_text("time_minutes = 5\ngpus_per_task = 4\ncells_per_job = 2\n")
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--launcher", "slurm", "--dry-run")
    done = bench(*command, "--profile", tmp_path / "ours.toml", *options)
    assert said in done.stderr
    assert done.code == (2 if said else 0)


def test_a_profile_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text("time_minutes = 5\n", encoding="utf-8-sig")
    assert read(tmp_path / "ours.toml").time_minutes == 5


def test_cells_are_stopped_in_time_also_in_short_jobs() -> None:
    assert [Profile(time_minutes=minutes).signal_seconds for minutes in (1, 4, 720)] == [15, 60, 90]


def test_the_name_in_the_queue_is_plain_whatever_the_folder_is_called() -> None:
    assert job_name(Path("/data/mes résultats ✨")).startswith("bench-mes-r-sultats---")


def test_a_dry_run_prints_the_script_and_submits_nothing(bench: Bench, grid: Grid, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    keys = ("time_minutes = 30", "partition = 'gpu'", "gpus_per_task = 2", "memory_gb = 1.5", "array_parallelism = 3")
    rest = ("cpus_per_task = 3", "setup = ['module load cuda']", "[environment]", "GREETING = 'two words'")
    (tmp_path / "ours.toml").write_text("\n".join([*keys, *rest]))
    launcher = ("--launcher", "slurm", "--profile", tmp_path / "ours.toml", "--dry-run")
    printed = bench("run", "--suite", grid.suite, "--out", tmp_path / "runs", *launcher)
    assert (printed.code, printed.stderr) == (0, "")
    flags = {line.removeprefix("#SBATCH --") for line in printed.stdout.splitlines() if line.startswith("#SBATCH")}
    expected = {"partition=gpu", "time=30", "gres=gpu:2", "mem=1536MB", "array=0-4%3", "requeue", "signal=USR2@90"}
    assert expected <= flags
    step = next(line for line in printed.stdout.splitlines() if line.startswith("srun "))
    assert " --cpus-per-task=3 " in step, "else, with core binding, the job trains on one core"
    assert "export GREETING='two words'" in printed.stdout
    assert "\nmodule load cuda\n" in printed.stdout
    assert not (tmp_path / "runs").exists()
    as_json = bench("run", "--suite", grid.suite, "--out", tmp_path / "runs", *launcher, "--json").json
    assert as_json["script"].startswith("#!/bin/bash")
