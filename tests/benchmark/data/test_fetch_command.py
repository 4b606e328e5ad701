"""The command that an error names for fetching a data set can be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmark.data.checked import fetch_command


@pytest.mark.parametrize("folder", ["data", "two words", "it's $HOME; `x`"])
def test_the_command_names_the_folder_as_one_word(folder: str) -> None:
    words = shlex.split(fetch_command("mnist", Path(folder)))
    assert words == ["python", "-m", "benchmark", "data", "fetch", "mnist", "--data-dir", folder]
