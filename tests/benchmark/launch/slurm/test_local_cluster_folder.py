"""The local cluster's state lies where no other user can plant files: it runs programs as root from there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "slurm" / "local-cluster"
ROOT_ONLY = ("start", "stop", "install")


def local_cluster(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCAL_CLUSTER")}
    return subprocess.run([SCRIPT, command], env=inherited | variables, capture_output=True, text=True, timeout=60)


def refused(folder: Path) -> bool:
    """Whether every command refuses the folder and leaves it as it is."""
    before = sorted(folder.parent.rglob("*"))
    for command in ("env", "status", *(ROOT_ONLY if os.geteuid() == 0 else ())):
        done = local_cluster(command, LOCAL_CLUSTER_DIR=str(folder))
        assert done.stderr == (
            f"local-cluster: {folder} is no folder of your own with mode 700: "
            "remove it, or set LOCAL_CLUSTER_DIR to another\n"
        ), command
        assert (done.returncode, done.stdout) == (1, "")
    return sorted(folder.parent.rglob("*")) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "cluster"
    path.mkdir(mode=0o700)
    return path


def test_the_default_folder_is_in_no_shared_temporary_directory(tmp_path: Path) -> None:
    shown = local_cluster("env", TMPDIR=str(tmp_path)).stdout
    assert shown.startswith("export SLURM_CONF=/")
    assert not shown.startswith((f"export SLURM_CONF={tmp_path}", "export SLURM_CONF=/tmp/"))


def test_a_folder_of_ones_own_is_used(folder: Path) -> None:
    done = local_cluster("env", LOCAL_CLUSTER_DIR=f"{folder}/")
    assert (done.returncode, done.stdout) == (0, f"export SLURM_CONF={folder}/etc/slurm.conf\n")
    assert "munged: down" in local_cluster("status", LOCAL_CLUSTER_DIR=str(folder)).stdout


def test_a_link_is_refused(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert refused(link)
    link.unlink()
    link.symlink_to(folder.parent / "missing")
    assert refused(link)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o1777])
def test_a_folder_that_others_may_read_or_write_is_refused(mode: int, folder: Path) -> None:
    folder.chmod(mode)
    assert refused(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, 12345, 12345)
    assert refused(folder)


def test_a_file_is_refused(folder: Path) -> None:
    (folder.parent / "file").touch(mode=0o700)
    assert refused(folder.parent / "file")


@pytest.mark.parametrize("name", ["two words", "a;b", "a\nPidFile=x", "$HOME", "relative"])
def test_a_name_that_a_configuration_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    path = name if name == "relative" else f"{tmp_path}/{name}"
    done = local_cluster("env", LOCAL_CLUSTER_DIR=path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "give an absolute path of letters, digits and /._-" in done.stderr
