"""docs/notebooks/dst_on_your_model.ipynb runs, and its stored outputs are those of its code.

The outputs are stored because the notebook is read on the site and on code hosts, where nobody runs
it. `python tests/docs/test_notebook.py` writes them again.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs/notebooks/dst_on_your_model.ipynb"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def executed() -> Any:
    """The notebook with the outputs of a kernel that starts in its folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    with tempfile.TemporaryDirectory() as sockets:  # in place of ports, which other users of the machine can reach
        kernel = AsyncKernelManager(transport="ipc", ip=f"{sockets}/kernel")
        return NotebookClient(notebook, km=kernel, timeout=120, record_timing=False, resources=folder).execute()


def printed(notebook: Any) -> list[str]:
    """The lines that its cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [line for output in outputs if output.output_type == "stream" for line in output.text.splitlines()]


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_it_runs_and_prints_what_is_stored() -> None:
    """Times depend on the machine; other numbers may differ a little between processors."""
    stored, now = nbformat.read(NOTEBOOK, as_version=4), executed()
    assert pictures(stored) == pictures(now) == 1
    lines = list(zip(printed(stored), printed(now), strict=True))
    assert len(lines) == 10
    for before, after in lines:
        assert NUMBER.sub("#", " ".join(before.split())) == NUMBER.sub("#", " ".join(after.split()))
        if " ms " not in before:
            expected, found = (list(map(float, NUMBER.findall(line))) for line in (before, after))
            assert found == pytest.approx(expected, rel=0.15)


def test_what_it_says_of_size_and_time_is_what_is_stored() -> None:
    """Zeros do not change size or time; compaction makes the network smaller and faster."""
    lines = printed(nbformat.read(NOTEBOOK, as_version=4))
    sizes, times = (
        {line.split()[0]: float(line.split()[1]) for line in lines if unit in line} for unit in (" kB ", " ms ")
    )
    assert sizes["sparse"] == sizes["dense"] > 2 * sizes["compact"]
    assert times["compact"] < min(times["sparse"], times["dense"])


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
