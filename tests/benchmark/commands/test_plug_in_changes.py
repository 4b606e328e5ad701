"""A method's file that changed after its cells were finished is named; a failed cell's traceback too."""

from __future__ import annotations

from pathlib import Path

import grids
import pytest


def run(suite: Path, out: Path, *more: str) -> grids.Finished:
    short = ("--seeds", "0", "--set", "optimizer.epochs=1", "--where", "method=ours", "--no-mlflow")
    return grids.finish(grids.start("run", "--suite", suite, "--out", out, *short, *more))


@pytest.mark.slow
def test_finished_cells_of_an_edited_method_are_named_and_kept(tmp_path: Path) -> None:
    assert grids.finish(grids.start("new", "method", "ours", "--folder", tmp_path)).code == 0
    file, out = tmp_path / "ours.py", tmp_path / "runs"
    first = run(file, out)
    assert (first.code, "warning" in first.stdout) == (0, False)
    assert "warning" not in run(file, out).stdout
    file.write_text(file.read_text() + "\n# another line\n")
    again = run(file, out)
    assert again.code == 0
    words = " ".join(again.stdout.split())
    assert (
        "warning: ours.py changed after 1 finished cell of method ours, which is not trained again: "
        "raise its version, or use another --out" in words
    )


@pytest.mark.slow
def test_a_failed_cell_names_its_traceback_and_how_to_train_it_again(tmp_path: Path) -> None:
    assert grids.finish(grids.start("new", "method", "ours", "--folder", tmp_path)).code == 0
    file, out = tmp_path / "ours.py", tmp_path / "runs"
    good = file.read_text()
    head = "    def after_step(self, ctx"
    assert head in good
    place = good.index(":\n", good.index(head)) + 2
    file.write_text(good[:place] + '        raise KeyError("my_state")\n' + good[place:])
    failed = run(file, out)
    (trace,) = out.glob("cells/*/attempts/*/traceback.txt")
    words = "".join(failed.stdout.split())
    assert failed.code == 1
    assert "".join(f"1 failed; the traceback of the first: {trace}; after mending".split()) in words
    assert "--retry-failed trains them again" in " ".join(failed.stdout.split())
    file.write_text(good)
    mended = run(file, out, "--retry-failed")
    assert (mended.code, "failed;" in mended.stdout) == (0, False)
