"""`analysis compare`: what changed between two result sets, and what did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis import __main__ as command
from analysis.compare import compare, text
from analysis.data.read import load

MODEL = "lenet-300-100"


def cells(**changes: Any) -> list[dict[str, Any]]:
    return [synthetic.cell(MODEL, "dst", s, alpha=5e-4, accuracy=97.0 + s / 10) | changes for s in range(3)]


def compared(folder: Path, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> tuple[Any, dict[str, int]]:
    return compare(load([synthetic.write(folder / "a", a)]), load([synthetic.write(folder / "b", b)]))


def test_equal_sets_have_no_difference(tmp_path: Path) -> None:
    found, counted = compared(tmp_path, cells(), cells(train_seconds=9.0))
    assert found == []
    assert (counted["in both"], counted["bit-identical"]) == (3, 3)
    assert "no difference" in text(found, counted)


def test_cells_of_one_set_alone_and_statuses_are_named(tmp_path: Path) -> None:
    other = synthetic.cell(MODEL, "dense", 0)
    failed = synthetic.cell(MODEL, "dst", 1, alpha=5e-4, status="failed")
    found, _ = compared(tmp_path, cells(), [cells()[0], failed, other])
    kinds = {(change.kind, change.a, change.b) for change in found if change.kind != "mean"}
    assert kinds == {("only in A", "done", ""), ("only in B", "", "done"), ("status", "done", "failed")}


def test_numbers_are_called_within_and_beyond_seed_noise(tmp_path: Path) -> None:
    for difference, place in ((0.1, "within"), (1.0, "beyond")):
        changed = [row | {"test_accuracy": row["test_accuracy"] + difference} for row in cells()]
        found, counted = compared(tmp_path, cells(), changed)
        assert [place in change.note for change in found] == [True] * 4
        assert [change.kind for change in found] == ["number"] * 3 + ["mean"]
        assert counted["bit-identical"] == 0


def test_machines_and_commits_are_one_line_each(tmp_path: Path) -> None:
    found, counted = compared(tmp_path, cells(), cells(device="gpu", commit="beef"))
    assert [(c.kind, c.cell, c.what, c.b) for c in found] == [
        ("environment", "3 of 3 cells", "device", "gpu"),
        ("environment", "3 of 3 cells", "commit", "beef"),
    ]
    assert counted["bit-identical"] == 3


def test_the_command_prints_a_table_or_json_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = synthetic.write(tmp_path / "a", cells())
    b = synthetic.write(tmp_path / "b", cells()[:2])
    said = []
    for extra in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", ["analysis", "compare", str(a), str(b), *extra])
        with pytest.raises(SystemExit) as caught:
            command.main()
        assert caught.value.code == 0
        said.append(capsys.readouterr().out)
    assert said[0].startswith("cells: 3 in A, 2 in B, 2 in both, 2 bit-identical, 1 only in A")
    assert json.loads(said[1])["cells"]["only in A"] == 1


def test_no_escape_sequence_of_a_table_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = synthetic.write(tmp_path / "a", cells())
    b = synthetic.write(tmp_path / "b", cells(device="\x1b[2J"))
    monkeypatch.setattr("sys.argv", ["analysis", "compare", str(a), str(b)])
    with pytest.raises(SystemExit):
        command.main()
    printed = capsys.readouterr().out
    assert r"\x1b[2J" in printed
    assert printed.replace("\n", "").isprintable()
