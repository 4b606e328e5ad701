"""`container` in a profile wraps the job's Python in an Apptainer image.

Neither Apptainer nor an image is needed: `apptainer` is a stand-in that runs the command outside any
container, with no program of the host on PATH. Its words, and how Apptainer reads them (--mount is a
line of CSV), are those of Apptainer 1.4.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Bench
from slurm_grids import Submit, assert_same_bits, slurm

from benchmark import suites
from benchmark.launch.base import Event
from benchmark.launch.slurm import task
from benchmark.launch.slurm.profile import read
from benchmark.spec import SpecError
from benchmark.training.execution import Execution

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
ROOT = Path(__file__).resolve().parents[4]
ODD = 'a, [b]\'s "c" $HOME `d` ;&#:é😀'
MINIMUM = "time_minutes = 5\n"
APPTAINER = """
import os, sys
words = sys.argv[2:]
while words[0] in ("--nv", "--mount"):
    del words[: 1 if words[0] == "--nv" else 2]
image, program, *command = words
assert sys.argv[1] == "exec" and os.path.isfile(image) and program == "python", sys.argv
os.environ["PATH"] = {inside!r}
os.execvp("python", ["python", *command])
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile beside an image."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/bench.sif").touch()
    path = tmp_path / "cluster/ours.toml"
    path.write_text(f'{MINIMUM}container = "bench.sif"\n')
    return path


def program(folder: Path, name: str, script: str, *, shell: str = sys.executable) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{shell}\n{script}\n")
    (folder / name).chmod(0o755)


def script_of(bench: Bench, suite: str, profile: Path, out: str | Path, *options: str | Path) -> str:
    command = ("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile, "--dry-run")
    done = bench(*command, *options, "--json")
    assert (done.code, done.stderr) == (0, "")
    return str(done.json["script"])


def container_words(script: str) -> list[str]:
    """What follows srun's own words in a script."""
    (line,) = (line for line in script.splitlines() if line.startswith("srun "))
    words = shlex.split(line)
    return words[words.index("apptainer") :]


def mounted(words: Sequence[str]) -> list[str]:
    """The folders that are mounted, each at its own path."""
    lines = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
    fields = list(csv.reader(lines, strict=True))
    assert all(kind == "type=bind" and source[6:] == target[11:] for kind, source, target in fields), (
        ", so three fields"
    )
    return [source.removeprefix("source=") for _, source, _ in fields]


# --- the script ----------------------------------------------------------------------------------


def test_the_jobs_python_is_the_images(bench: Bench, suite: str, profile: Path, tmp_path: Path) -> None:
    words = container_words(script_of(bench, suite, profile, tmp_path / "runs"))
    assert words[:2] == ["apptainer", "exec"]
    at = words.index(str(profile.parent / "bench.sif"))
    assert words[at + 1 : -1] == ["python", "-u", "-m", "submitit.core._submit"]
    assert Path(words[-1]).parent == tmp_path / "runs/slurm"
    assert "--nv" not in words


def test_a_job_with_gpus_sees_them_in_the_container(bench: Bench, suite: str, profile: Path, tmp_path: Path) -> None:
    profile.write_text(profile.read_text() + "gpus_per_task = 1\n")
    assert "--nv" in container_words(script_of(bench, suite, profile, tmp_path / "runs"))


def test_a_container_sees_the_run_folder_the_data_the_code_and_the_suite(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a data folder that is not there, and no folder twice."""
    for name in ("data", "work/inner", "more"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "more"), str(tmp_path / "none")]))
    expected = [ROOT, Path(suite).parent, *(tmp_path / name for name in ("data", "more", "runs", "work"))]
    data = ("--data-dir", tmp_path / "data")
    words = container_words(script_of(bench, suite, profile, tmp_path / "runs", *data))
    assert sorted(mounted(words)) == sorted(map(str, expected))
    words = container_words(script_of(bench, suite, profile, "inner/runs", "--data-dir", "missing"))
    expected = [ROOT, Path(suite).parent, *(tmp_path / name for name in ("more", "work"))]
    assert sorted(mounted(words)) == sorted(map(str, expected)), "the run folder is inside work"


def test_a_package_that_pip_installed_is_not_carried_into_the_container(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages beside it would hide those of the image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(ROOT))
    script = script_of(bench, suite, profile, tmp_path / "runs")
    assert sorted(mounted(container_words(script))) == sorted([str(tmp_path), str(Path(suite).parent)])
    assert f"\nexport PYTHONPATH={tmp_path}\n" in script


def test_the_root_of_the_file_system_is_not_mounted(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hide the image."""
    monkeypatch.chdir("/")
    assert str(tmp_path / "runs") in mounted(container_words(script_of(bench, suite, profile, tmp_path / "runs")))
    assert "/" not in mounted(container_words(script_of(bench, suite, profile, tmp_path / "runs")))


def test_a_profile_without_a_container_starts_this_python(
    bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    for text in ("", 'container = ""\n'):
        profile.write_text(MINIMUM + text)
        script = script_of(bench, suite, profile, tmp_path / "runs")
        assert "apptainer" not in script
        assert "scontrol" not in script
        assert f" {shlex.quote(sys.executable)} -u -m submitit" in script


# --- the image -----------------------------------------------------------------------------------


def test_a_relative_image_lies_beside_the_profile(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(profile.parents[1])
    (profile.parents[1] / "bench.sif").touch()  # where the command runs, which does not count
    assert read(Path("cluster/ours.toml")).container == str(profile.parent / "bench.sif")
    profile.write_text(f'{MINIMUM}container = "../bench.sif"')
    assert read(Path("cluster/ours.toml")).container == str(profile.parents[1] / "bench.sif")
    profile.write_text(f"{MINIMUM}container = {json.dumps(str(profile.parent / 'bench.sif'))}")
    assert read(profile).container == str(profile.parent / "bench.sif")


@pytest.mark.parametrize(
    "text", ["none.sif", "docker://python:3.11", "library://bench", ".", "/", "--bind=/", "~/bench.sif", "x" * 9999]
)
def test_an_image_that_is_no_file_is_named(text: str, profile: Path) -> None:
    """Nothing is fetched from elsewhere, and a folder is no image."""
    profile.write_text(f'{MINIMUM}container = "{text}"')
    with pytest.raises(SpecError, match=r"container is '.*, but there is no file '/") as caught:
        read(profile)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 800


def test_an_image_is_one_text(profile: Path) -> None:
    profile.write_text(f'{MINIMUM}container = ["bench.sif"]')
    with pytest.raises(SpecError, match=r"container is \['bench.sif'\], not a text"):
        read(profile)


def test_an_image_that_no_script_can_hold_is_refused(profile: Path, tmp_path: Path) -> None:
    (tmp_path / "two\nlines").mkdir()
    (tmp_path / "two\nlines/bench.sif").touch()
    profile.rename(tmp_path / "two\nlines/ours.toml")
    with pytest.raises(SpecError, match="container: a job's script cannot hold"):
        read(tmp_path / "two\nlines/ours.toml")


# --- odd characters ------------------------------------------------------------------------------


def test_a_strangers_image_and_folders_reach_apptainer_as_they_are_called(
    bench: Bench, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commas and quotes too, which --bind would take apart; nothing in a name is run."""
    for name in ("data", "work", "suites"):
        (tmp_path / name / ODD).mkdir(parents=True)
    suite = grids.write_suite(tmp_path / "suites" / ODD / "grid.py", {"lenet-300-100": 2}, methods=["dst"])
    hostile = "-x'\"; touch hit; $(touch hit) `touch hit` #.sif"
    (profile.parent / hostile).touch()
    profile.write_text(f"{MINIMUM}container = {json.dumps(hostile)}")
    monkeypatch.chdir(tmp_path / "work" / ODD)
    script = script_of(bench, suite, profile, tmp_path / ODD / "runs", "--data-dir", tmp_path / "data" / ODD)
    program(tmp_path / "bin", "srun", "import json, sys; print(json.dumps(sys.argv))")
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    ran = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    words = json.loads(ran.stdout)
    assert str(profile.parent / hostile) in words
    expected = [ROOT, tmp_path / ODD / "runs", *(tmp_path / name / ODD for name in ("data", "work", "suites"))]
    assert sorted(mounted(words)) == sorted(map(str, expected))
    assert not list((tmp_path / "work" / ODD).iterdir())


@pytest.mark.parametrize("mode", ["--dry-run", "--detach"])
def test_a_folder_that_no_script_can_mount_is_refused_before_anything_is_submitted(
    mode: str, bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    (tmp_path / "two\nlines").mkdir()
    launcher = ("--launcher", "slurm", "--profile", profile, mode)
    data = ("--data-dir", tmp_path / "two\nlines")
    refused = bench("run", "--suite", suite, "--out", tmp_path / "runs", *launcher, *data)
    assert refused.code == 2
    assert "has to be mounted in the container: a job's script cannot hold it" in refused.error
    assert not (tmp_path / "runs/slurm").exists()


# --- the job goes back into the queue ------------------------------------------------------------


@pytest.mark.parametrize(("code", "asked"), [(75, ["requeue 7"]), (0, []), (1, []), (137, [])])
def test_the_script_requeues_the_job_of_a_task_that_asks_for_it(
    code: int, asked: list[str], bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    """The image has no scontrol. The script ends with the task's own code."""
    script = script_of(bench, suite, profile, tmp_path / "runs")
    program(tmp_path / "bin", "srun", f"raise SystemExit({code})")
    program(tmp_path / "bin", "scontrol", f'echo "$@" >> {shlex.quote(str(tmp_path / "asked"))}', shell="/bin/sh")
    program(tmp_path / "bin", "sleep", "", shell="/bin/sh")
    (tmp_path / "asked").touch()
    environment = {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]), "SLURM_JOB_ID": "7"}
    ran = subprocess.run(["bash", "-c", script], env=os.environ | environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (code, "")
    assert (tmp_path / "asked").read_text().splitlines() == asked


def test_the_script_asks_again_where_slurm_does_not_answer(
    bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    script = script_of(bench, suite, profile, tmp_path / "runs")
    asked = shlex.quote(str(tmp_path / "asked"))
    program(tmp_path / "bin", "srun", "raise SystemExit(75)")
    program(tmp_path / "bin", "scontrol", f"echo again >> {asked}; test $(wc -l < {asked}) -eq 3", shell="/bin/sh")
    program(tmp_path / "bin", "sleep", "", shell="/bin/sh")
    environment = {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]), "SLURM_JOB_ID": "7"}
    subprocess.run(["bash", "-c", script], env=os.environ | environment, check=False)
    assert (tmp_path / "asked").read_text().split() == ["again"] * 3


@pytest.mark.parametrize("in_container", [True, False])
def test_a_task_in_a_container_leaves_the_requeue_to_its_script(
    in_container: bool, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """A pool whose cells save their state when the time limit is near."""

        def __init__(self, *_: object, **__: object) -> None: ...
        def submit(self, specs: object) -> None: ...
        def stop(self) -> None: ...
        def events(self) -> Iterator[Event]:
            signal.raise_signal(signal.SIGUSR2)
            return iter(())

    asked: list[str] = []
    monkeypatch.setattr(task, "LocalLauncher", Interrupted)
    monkeypatch.setattr(task.jobs, "got_further", lambda *_, **__: True)
    monkeypatch.setattr(task.slurm_queue, "requeue", asked.append)
    monkeypatch.setattr(task, "REQUEUE_PAUSE_SECONDS", 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    specs = suites.load(suite).specs
    given: dict[str, Any] = {
        "execution": Execution(out=tmp_path, data_dir=tmp_path).to_dict(),
        "specs": [spec.to_dict() for spec in specs],
        "before": {spec.run_id: 0 for spec in specs},
        "workers": 1,
        "probe": str(tmp_path),
        "in_container": in_container,
    }
    before = {number: signal.getsignal(number) for number in task.SIGNALS}
    try:
        with pytest.raises(SystemExit) as ended:
            task.run_cells(given)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (ended.value.code == 75, asked) == (in_container, [] if in_container else ["7"])


# --- a real SLURM, and a stand-in for Apptainer ----------------------------------------------------


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.usefixtures("one_thread")
def test_preempted_cells_in_a_container_are_queued_again(submit: Submit, alone: dict[str, Any], tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    program(inside, "python", f'exec {shlex.quote(sys.executable)} "$@"', shell="/bin/sh")
    program(tmp_path / "bin", "apptainer", APPTAINER.format(inside=str(inside)))
    (tmp_path / "bench.sif").touch()
    keys = {"container": "bench.sif", "setup": [f"PATH={shlex.quote(str(tmp_path / 'bin'))}:$PATH"]}
    grid = submit(sleep=0.05, keys=keys).at_work()
    slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert "resumed at step" in finished.stdout
    assert len(grid.jobs()) == 1, "SLURM had the job all the time"
    (log,) = grid.out.glob("slurm/*/*_log.out")
    assert "Exited with exit code 75" in log.read_text()
