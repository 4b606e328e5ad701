"""A real SLURM cluster of two nodes, and the suite that its tests train."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grids
import pytest
from slurm_grids import SCRIPT, SUITE, Submit, Submitted, cluster

MAX_ARRAY_SIZE = 3
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # each has clusters of its own


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    """Two nodes, n1 and n2, of four cores; this process's SLURM is that cluster."""
    if os.geteuid() != 0 or shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("a SLURM cluster of its own needs root and `slurm/local-cluster install`")
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        patch.setenv("LOCAL_CLUSTER_DIR", folder)  # beside another cluster: docs/clusters.md has the default one
        patch.setenv("LOCAL_CLUSTER_PORT", str(17800 + 100 * WORKER))
        patch.setenv("LOCAL_CLUSTER_CPUS", "4")
        patch.setenv("LOCAL_CLUSTER_CONF", f"MaxArraySize={MAX_ARRAY_SIZE}")
        cluster("install")
        cluster("start", "2")
        shown = subprocess.run([str(SCRIPT), "env"], check=True, capture_output=True, text=True).stdout
        patch.setenv("SLURM_CONF", shown.strip().partition("=")[2])
        yield
        cluster("stop")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "slow.py"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture(scope="module")
def alone(suite: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    return grids.train_alone(suite, tmp_path_factory.mktemp("alone"))


@pytest.fixture
def submit(nodes: None, suite: str, tmp_path: Path) -> Submit:
    return lambda *options, **fields: Submitted(suite, tmp_path, **fields).start(*options)
