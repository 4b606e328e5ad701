"""Mistakes in a suite file end the command in one line that names the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from grids import Bench

GIVEN = """from benchmark.spec import *
from benchmark.suites import cell
ONE = cell("dense", data=Data(name="digits"), model=Model(name="lstm-a"), optimizer=Optimizer())
"""
USES_GIVEN = re.compile(r"ONE|schedule=|400")
SUITES = {
    "a syntax error": ("def suite(:\n", ["SyntaxError", "line 1"]),
    "no suite()": ("suites = []\n", ["defines no function suite()"]),
    "an import that fails": ("import nothing_of_that_name\n", ["line 1: ModuleNotFoundError", "nothing_of_that_name"]),
    "a suite() that fails": ("def suite():\n    return [1 / 0]\n", ["line 2: suite() raised ZeroDivisionError"]),
    "a suite() that exits": ("import sys\ndef suite():\n    sys.exit(3)\n", ["line 3: suite() raised SystemExit: 3"]),
    "a file that exits": ("import sys\nsys.exit()\n", ["line 2: SystemExit"]),
    "a suite() that interrupts": (
        "def suite():\n    raise KeyboardInterrupt\n",
        ["line 2", "raised KeyboardInterrupt"],
    ),
    "a file that interrupts": ("raise KeyboardInterrupt\n", ["line 1: KeyboardInterrupt"]),
    "a suite() of other things": ("def suite():\n    return ['dense']\n", ["suite() returned 'dense' as a cell"]),
    "a suite() of nothing": ("def suite():\n    pass\n", ["suite() returned None, not a list of specs"]),
    "a suite() that is endless": ("def suite():\n    while True:\n        yield ONE\n", ["more than 100000 cells"]),
    "a suite() that fails late": ("def suite():\n    yield ONE\n    1 / 0\n", ["line 6: suite() raised Zero"]),
    "an error without a text": (
        "class Mute(Exception):\n    def __str__(self):\n        1 / 0\ndef suite():\n    raise Mute\n",
        ["line 5: suite() raised Mute: a Mute that has no text"],
    ),
    "a cell without a text": (
        "class Mute:\n    def __repr__(self):\n        1 / 0\ndef suite():\n    return [Mute()]\n",
        ["suite() returned a value of type Mute as a cell"],
    ),
    "an error that colours the terminal": (
        "def suite():\n    raise OSError('a\\x1b[31mb\\x07\\ud800')\n",
        ["raised OSError: a\\x1b[31mb\\x07\\ud800"],
    ),
    "an error of many lines": (
        "def suite():\n    raise OSError('a\\nb' + 10**6 * ' c')\n",
        ["raised OSError: a b c", "…"],
    ),
    "a cell of many characters": ("def suite():\n    return [10**6 * 'c']\n", ["suite() returned 'ccc", "…"]),
    "an error of many characters": ("def suite():\n    raise OSError(10**6 * 'c')\n", ["OSError: ccc", "…"]),
    "exhibits that are none": ("EXHIBITS = 5\ndef suite():\n    return [ONE]\n", ["EXHIBITS is 5, not a tuple"]),
    "exhibits in one text": ("EXHIBITS = 'a'\ndef suite():\n    return [ONE]\n", ["EXHIBITS is 'a', not a tuple"]),
    "a description that is none": (
        "DESCRIPTION = 5\ndef suite():\n    return [ONE]\n",
        ["DESCRIPTION is 5, not a text"],
    ),
    "a protocol that is none": (
        "import dataclasses\ndef suite():\n    return [dataclasses.replace(ONE, protocol=(5,))]\n",
        ["protocol 5 of lstm-a dense", "is no name"],
    ),
    "a step schedule without milestones": (
        "def suite():\n    return [cell('dense', data=Data(name='digits'), model=Model(name='lstm-a'), "
        "optimizer=Optimizer(schedule='step'))]\n",
        ["line 5", "needs optimizer.milestones"],
    ),
    "a misspelt field": (
        "def suite():\n    Optimizer(epoch=3)\n    return [ONE]\n",
        ["line 5: unknown optimizer field 'epoch': did you mean 'epochs'? valid: batch_size, epochs, gamma"],
    ),
    "a method that is no name": (
        "def suite():\n    return [ONE, cell(['dst'], data=ONE.data, model=ONE.model, optimizer=ONE.optimizer)]\n",
        ["line 5: the method is ['dst']: give its name, such as 'dst'"],
    ),
    "a protocol in one text": (
        "def suite():\n    return [cell('dense', protocol='paper', data=ONE.data, model=ONE.model, optimizer=SGD)]\n"
        "SGD = ONE.optimizer\n",
        ["line 5: protocol is 'paper': it must be tuple"],
    ),
    "a plug-in without a name": (
        "import methods\nmethods.register(None, 'a:B')\n",
        ["line 2: ValueError: method None: its name must be 1 to 100"],
    ),
    "a number of 400 digits": (
        "def suite():\n    return [cell('dense', data=Data(name='digits'), model=Model(name='lstm-a'), "
        "optimizer=Optimizer(lr=10**400))]\n",
        ["line 5", "optimizer.lr is a number of 1329 bits"],
    ),
    "no cells": ("def suite():\n    return []\n", ["has no cells"]),
    "an unknown method": (
        "from benchmark.suites import cell\nfrom benchmark.spec import *\ndef suite():\n    return "
        "[cell('dts', data=Data(name='digits'), model=Model(name='lstm-a'), optimizer=Optimizer())]\n",
        ["unknown method 'dts'", "did you mean 'dst'?", "dense"],
    ),
    "an unknown hyperparameter": (
        "from benchmark.suites import cell\nfrom benchmark.spec import *\ndef suite():\n    return "
        "[cell('dst', alhpa=1.0, data=Data(name='digits'), model=Model(name='lstm-a'), optimizer=Optimizer())]\n",
        ["dst has no hyperparameter 'alhpa'", "did you mean 'alpha'?"],
    ),
}


@pytest.mark.parametrize("wrong", SUITES)
def test_a_wrong_suite_file_is_one_line_that_names_it(wrong: str, bench: Bench, tmp_path: Path) -> None:
    content, fragments = SUITES[wrong]
    (tmp_path / "own.py").write_text((GIVEN if USES_GIVEN.search(content) else "") + content)
    finished = bench("run", "--suite", tmp_path / "own.py", "--out", tmp_path / "runs")
    assert finished.code == 2
    assert all(fragment in finished.error for fragment in ["suite", "own", *fragments]), finished.error
    assert not (tmp_path / "runs").exists()
