"""Released networks without ONNX, which takes seconds. tests/libraries tries it."""

from __future__ import annotations

from pathlib import Path

import pytest
import released


@pytest.fixture(autouse=True)
def _without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.release.onnx_program.NEEDED", ("a_package_that_is_not_there",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    released.release(tmp_path / "network")
    return tmp_path / "network"
