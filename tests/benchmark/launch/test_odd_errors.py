"""Errors of plug-ins: one printable line of at most 500 characters, the same in the folder and on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import grids
import pytest
from grids import Bench

from benchmark.messages import LONGEST, describe, one_line

SUITE = '''
import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

TEXTS = {texts!r}


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("there are no words")


class Odd(methods.Method):
    """Fails with the text of its number."""

    name = "odd"
    version = 1
    reference = "none"
    density_promise = "dense"

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def after_step(self, ctx):
        raise RuntimeError(TEXTS[self.number]) if self.number < len(TEXTS) else Unspeakable()


methods.register("odd", f"{{__name__}}:Odd")


def suite():
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=16, test_limit=8)
    optimizer = Optimizer(batch_size=16, epochs=1)
    model = Model(name="lenet-300-100")
    return [cell("odd", data=data, model=model, optimizer=optimizer, number=at) for at in range(len(TEXTS) + 1)]
'''
TEXTS = {
    "half a character: \ud800": "half a character: \\ud800",
    "a bell \x07 and \x1b[31mred\x1b[0m": "a bell \\x07 and \\x1b[31mred\\x1b[0m",
    "\n\n  first\nsecond": "first",
    "one\x0bcut \u2028here": "one",
    "to the right \u202e left": "to the right \\u202e left",
    "accents \u00e9 and \U0001f600, =1+1": "accents \u00e9 and \U0001f600, =1+1",
    "x" * 100_000: "x" * 100_000,
    "\x00" * 100_000: "\\x00" * 100_000,
    "": "",
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.items(), ids=lambda text: repr(text)[:20])
def test_an_error_is_one_printable_line(text: str, shown: str) -> None:
    line = describe(RuntimeError(text))
    expected = f"RuntimeError: {shown}".strip()
    assert line == (expected if len(expected) <= LONGEST else expected[: LONGEST - 1] + "…")
    assert len(line) <= LONGEST
    assert line.isprintable()
    assert one_line(line) == line


def test_the_folder_the_tables_and_the_screen_say_the_same(bench: Bench, tmp_path: Path) -> None:
    texts = [text for text in TEXTS if text.startswith(("half", "a bell", "xx"))]  # each failure takes a worker
    (tmp_path / "odd.py").write_text(SUITE.format(texts=texts))
    out = tmp_path / "runs"
    finished = bench("run", "--suite", tmp_path / "odd.py", "--out", out, "--workers", "1", "--no-mlflow")
    assert (finished.code, finished.stderr) == (1, "")
    lines = finished.stdout.splitlines()
    line = SUITE[: SUITE.index("raise RuntimeError")].count("\n") + 1
    where = f"method 'odd', after_step (odd.py, line {line})"
    expected = {
        one_line(f"{where}: {error}") for error in [*(describe(RuntimeError(t)) for t in texts), "Unspeakable:"]
    }
    rows = grids.rows(out)
    assert {row["error"] for row in rows.values()} == expected
    listed = {cell["run_id"]: cell["error"] for cell in bench("status", "--out", out, "--json").json["cells"]}
    for run_id, row in rows.items():
        (attempt,) = (out / "cells" / run_id / "attempts").iterdir()
        assert row["status"] == "failed"
        assert json.loads((attempt / "end.json").read_bytes())["error"] == row["error"] == listed[run_id]
        assert (attempt / "traceback.txt").stat().st_size > 0
        (shown,) = [line for line in lines if run_id in line and ": failed" in line]
        assert f": failed: {row['error']}" in shown
