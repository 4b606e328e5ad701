"""Python blocks of docs/checkpoints.md. The second needs a cell: test_export_checkpoint.py runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import methods

PAGE = (Path(__file__).resolve().parents[3] / "docs/checkpoints.md").read_text()


def test_the_blocks_run_as_printed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _, own = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert plain in (folder / "README.md").read_text()
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(own, names)
    assert torch.equal(names["again"](names["x"]), names["model"](names["x"]))
    assert list(names["left_out"]) == ["model.onnx"]


def test_the_page_lists_every_file(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= set(re.findall(r"^\| `([\w.-]+)` \|", PAGE, re.M))
    assert methods.load_masks(folder).keys() == {"features.0.weight", "hidden.weight", "head.weight"}
