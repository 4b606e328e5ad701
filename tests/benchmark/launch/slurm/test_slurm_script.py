"""A profile and a folder's name reach the job's script as they are, or not at all. Needs no SLURM.

`sbatch` and `srun` are stand-ins; test_slurm_names.py has the real ones.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import grids
import pytest
from grids import Bench

from benchmark import results, suites
from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.profile import read
from benchmark.spec import SpecError

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
ODD = 'a [b]\'s "c" $HOME `d` ;&#é😀'
HOSTILE = "x'\"; touch hit; $(touch hit) `touch hit` #"
MINIMUM = "time_minutes = 5\n"


@pytest.fixture
def suite(tmp_path: Path) -> str:
    return grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 2}, methods=["dst"])


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "ours.toml"
    path.write_text(MINIMUM)
    return path


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{script}\n")
    (folder / name).chmod(0o755)


# --- profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["\\n", "\\r", "\\u0000", "\\u001b", "\\u0085", "\\u2028"])
@pytest.mark.parametrize(
    "line",
    [
        'partition = "a{}#SBATCH --uid=0"',
        'constraint = "a{}b"',
        'account = "a{}b"',
        'container = "a{}b"',
        'setup = ["a{}b"]',
        'environment = {{A = "a{}b"}}',
    ],
)
def test_a_text_of_several_lines_reaches_no_script(line: str, control: str, profile: Path) -> None:
    profile.write_text(MINIMUM + line.format(control))
    with pytest.raises(SpecError, match=f"{line.split()[0]} holds .*: write one line per text") as caught:
        read(profile)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["A B", "A-B", "1A", "", "é", "A=1; touch hit; B", "A$(touch hit)", "A\\nB"])
def test_an_environment_names_shell_variables(name: str, profile: Path) -> None:
    profile.write_text(f'{MINIMUM}environment = {{"{name}" = "x"}}')
    with pytest.raises(SpecError, match=r"environment: .* is no name of a shell variable") as caught:
        read(profile)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cpus_per_task = 99999999999", "cpus_per_task is 99999999999, not a number up to"),
        (f"cells_per_job = 0x{'f' * 9999}", "cells_per_job is a huge number, not a number up to"),
        (f"cells_per_job = {'9' * 9999}", "no TOML"),
        (f"partition = [0x{'f' * 9999}]", "partition is a huge number, not a text"),
        (f"setup = {'[' * 9999}", "no TOML"),
        (f"partition = {['x' * 100]}", "partition is .{60}…, not a text"),
        ('"a\\nb" = 1', r"unknown key 'a\\nb'"),
    ],
)
def test_numbers_and_texts_without_measure_are_one_short_line(line: str, said: str, profile: Path) -> None:
    profile.write_text(MINIMUM + line)
    with pytest.raises(SpecError, match=said) as caught:
        read(profile)
    assert len(str(caught.value)) < 400
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_text_leaves_the_clusters_default(profile: Path) -> None:
    profile.write_text(f'{MINIMUM}partition = ""\naccount = ""')
    assert not {"partition", "account"} & set(read(profile).parameters(job_name="x", python_path="."))


def test_a_strangers_profile_runs_no_code_outside_setup(
    bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    hostile = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    keys = "".join(f'{key} = "{hostile}"\n' for key in ("partition", "constraint", "account"))
    profile.write_text(f'{MINIMUM}{keys}environment = {{GREETING = "{hostile}"}}')
    out = tmp_path / ODD / "runs"
    command = ("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile, "--dry-run")
    script = bench(*command, "--json").json["script"]
    program(tmp_path / "bin", "srun", "import json, os, sys; print(json.dumps([os.environ['GREETING'], sys.argv]))")
    inside = tmp_path / "inside"
    inside.mkdir()
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    ran = subprocess.run(
        ["bash", "-c", script], cwd=inside, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    greeting, words = json.loads(ran.stdout)
    assert greeting == HOSTILE
    assert Path(words[-1]).parent == out / "slurm"
    assert list(inside.iterdir()) == []


def test_a_job_that_is_submitted_from_inside_an_allocation_gets_none_of_its_variables(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun takes SLURM_MEM_PER_CPU and the like for its own. It passes variables on whatever sbatch is told."""
    given = tmp_path / "given"
    sbatch = f"import os, sys; open({str(given)!r}, 'w').write(open(sys.argv[-1]).read() + str([*os.environ]))"
    program(tmp_path / "bin", "sbatch", f"{sbatch}; print('Submitted batch job 7')")
    for name in ("srun", "squeue", "scontrol", "sacct"):
        program(tmp_path / "bin", name, "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    kept, inside = {"SLURM_CONF", "SLURM_CLUSTERS"}, {"SLURM_MEM_PER_CPU", "SLURM_ARRAY_JOB_ID", "SLURM_EXPORT_ENV"}
    for name in kept | inside:
        monkeypatch.setenv(name, "x")
    options = ("--launcher", "slurm", "--profile", profile, "--detach")
    assert bench("run", "--suite", suite, "--out", tmp_path / "runs", *options).code == 0
    script, _, names = given.read_text().rpartition("[")
    assert {name for name in kept | inside if repr(name) in names} == kept
    assert " --export=ALL " in next(line for line in script.splitlines() if line.startswith("srun "))
    assert inside < set(os.environ)


def test_jobs_that_slurm_took_although_sbatch_timed_out_are_cancelled(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would wait for a pickle that nobody puts there. Another submission's job of that folder stays."""
    script, cancelled = tmp_path / "script", tmp_path / "cancelled"
    timed_out = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    program(
        tmp_path / "bin",
        "sbatch",
        f"import sys; open({str(script)!r}, 'w').write(sys.argv[-1]); sys.exit({timed_out!r})",
    )
    program(tmp_path / "bin", "squeue", f"print('6|/other/script.sh'); print('7|' + open({str(script)!r}).read())")
    program(tmp_path / "bin", "scancel", f"import sys; open({str(cancelled)!r}, 'w').write(' '.join(sys.argv[1:]))")
    for name in ("srun", "scontrol", "sacct"):
        program(tmp_path / "bin", name, "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    out = tmp_path / ODD / "runs"
    out.parent.mkdir()
    refused = bench("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile, "--detach")
    assert (refused.code, "Socket timed out" in refused.error) == (2, True)
    assert cancelled.read_text() == "7"
    assert list((out / "slurm").iterdir()) == []


# --- folders -------------------------------------------------------------------------------------


def test_the_command_of_a_dry_run_can_be_pasted(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a relative --out."""
    (tmp_path / ODD).mkdir()
    monkeypatch.chdir(tmp_path / ODD)
    printed = bench("run", "--suite", suite, "--out", "ru ns", "--launcher", "slurm", "--profile", profile, "--dry-run")
    assert (printed.code, printed.stderr) == (0, "")
    (line,) = (line for line in printed.stdout.splitlines() if line.startswith("srun "))
    words = shlex.split(line)
    assert words[-5:-1] == [sys.executable, "-u", "-m", "submitit.core._submit"]
    assert Path(words[-1]).parent == tmp_path / ODD / "ru ns" / "slurm"


@pytest.mark.parametrize("name", ["run%j", "100%", "a%%b", "back\\slash", "two\nlines", "bell\a", b"\xff"])
@pytest.mark.parametrize("mode", ["--dry-run", "--detach"])
def test_a_folder_that_slurm_would_rename_is_refused(
    name: str | bytes, mode: str, bench: Bench, suite: str, profile: Path, tmp_path: Path
) -> None:
    out = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
    refused = bench("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile, mode)
    assert refused.code == 2
    assert "SLURM writes into no folder with" in refused.error
    assert not (out / "slurm").exists()


def test_no_job_is_submitted_for_a_cell_behind_a_link(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "sbatch", f"open({str(tmp_path / 'submitted')!r}, 'w')")
    for name in ("srun", "squeue", "scontrol", "sacct"):
        program(tmp_path / "bin", name, "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    out, outside = tmp_path / "runs", tmp_path / "outside"
    (run_id,) = (spec.run_id for spec in suites.load(suite).specs)
    results.prepare(out)
    (out / "cells").mkdir()
    outside.mkdir()
    (out / "cells" / run_id).symlink_to(outside)
    refused = bench("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile)
    assert (refused.code, f"{out / 'cells' / run_id} is a link" in refused.error) == (2, True)
    assert not (tmp_path / "submitted").exists()
    assert list(outside.iterdir()) == []


def test_the_command_that_a_detached_run_prints_can_be_pasted(
    bench: Bench, suite: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts the jobs that SLURM has, not those that have ended."""
    program(tmp_path / "bin", "sbatch", "print('Submitted batch job 7')")
    program(tmp_path / "bin", "squeue", "print('7|PENDING||Resources')")
    for name in ("srun", "scontrol", "sacct"):
        program(tmp_path / "bin", name, "")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    out = tmp_path / ODD / ("long" * 20)
    out.parent.mkdir()
    results.prepare(out)
    jobs.append(out, [jobs.ClusterJob("6", ("0123456789ab",), "log")])
    done = bench("run", "--suite", suite, "--out", out, "--launcher", "slurm", "--profile", profile, "--detach")
    assert (done.code, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SLURM has 1 jobs; "))
    command = line[line.index("'") + 1 : line.rindex("' shows how far they are")]
    assert shlex.split(command) == ["python", "-m", "benchmark", "status", "--out", str(out)]
