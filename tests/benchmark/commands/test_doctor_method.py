"""`doctor --method`: what it prints and writes, its exit codes, and the committed table of all methods."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from grids import Bench

import methods
from benchmark.commands import conformance
from benchmark.spec import SpecError
from methods import registry
from methods.conformance import check
from methods.conformance.networks import FAST, FULL

TABLE = Path(__file__).parents[3] / "paper_figures/results/conformance/conformance.csv"
FILE = """
from methods import Method


class Good(Method):
    name = "good"
    version = 3
    reference = "none"
    density_promise = "dense"


class Broken(Good):
    name = "broken"

    def after_step(self, ctx):
        for weight in ctx.weights.values():
            weight.parameter.data[:, ::2] = 0
"""


@pytest.fixture(autouse=True)
def few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[:1])
    monkeypatch.setattr(check, "FULL", FAST[:1])
    monkeypatch.setattr(check.processes, "CHECKS", ())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_method_that_keeps_its_promises_exits_with_0_and_lists_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.check_methods("dense", "fast", None, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["resume_is_bit_exact", "kept"] for line in lines)
    assert any(line.startswith("units_are_whole") and "not applicable  prunes single" in line for line in lines)


def test_the_classes_of_a_file_are_checked_and_a_broken_promise_exits_with_1(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance.check_methods(str(file), "fast", None, True) == 1
    printed = document(capsys)
    assert (printed["exit_code"], list(printed["methods"])) == (1, ["Good", "Broken"])
    broken = [f["check"] for f in printed["methods"]["Broken"] if f["result"] == "broken"]
    assert broken == ["check_masks_are_the_zeros_of_the_finalized_weights"]
    assert not [f for f in printed["methods"]["Good"] if f["result"] == "broken"]


def test_one_class_of_a_file_is_checked_by_its_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.check_methods(f"{file}:Good", "fast", None, True) == 0
    assert list(document(capsys)["methods"]) == ["Good"]


@pytest.mark.parametrize(
    ("wanted", "level", "to", "message"),
    [
        ("dts", "fast", False, "unknown method 'dts': did you mean 'dst'?"),
        ("dst", "slow", False, "unknown --level 'slow'"),
        ("dst", "fast", True, "--to adds rows of all checks: use it with --level full"),
        ("{file}:Bad", "fast", False, "{file} defines no method class 'Bad': valid: Broken, Good; give FILE.py:Class"),
        ("{file}/none.py", "fast", False, "error: file {file}/none.py does not exist"),
        ("mine", "fast", False, "unknown method 'mine': did you mean the file mine.py?"),
        ("mine:Good", "fast", False, "unknown method 'mine:Good': did you mean the file mine.py:Good?"),
        ("yours", "fast", False, "valid: acdc, all, deep_r"),
        ("yours", "fast", False, "; or give a FILE.py or FILE.py:Class"),
        ("{empty}", "fast", False, "defines no method: no subclass of methods.Method"),
    ],
)
def test_what_cannot_be_checked_is_a_mistake_of_the_user(
    wanted: str, level: str, to: bool, message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(SpecError) as caught:
        conformance.check_methods(wanted.format(file=file, empty=empty), level, tmp_path if to else None, False)
    assert message.format(file=file) in f"error: {caught.value}"


BROKEN_HOOKS = """
from dataclasses import dataclass

import torch
from methods import Method


def chosen(weights):
    return weights["no such layer"]


class InItsHelper(Method):
    name, version, reference, density_promise = "helped", 1, "none", "emergent"

    def after_step(self, ctx):
        chosen(ctx.weights)


class InOurCode(InItsHelper):
    def after_step(self, ctx):
        ctx.masks.set({"no.weight": torch.ones(1)})


@dataclass(kw_only=True)
class InItsConstructor(InItsHelper):
    density: float = 0.5

    def __post_init__(self):
        self.density / 0
"""
RAISED = {
    "InItsHelper": "chosen (hooks.py, line 9): KeyError: 'no such layer'",
    "InOurCode": "after_step (hooks.py, line 21): ValueError: ",
    "InItsConstructor": "__post_init__ (hooks.py, line 29): ZeroDivisionError: float division by zero",
}


@pytest.mark.parametrize("name", RAISED)
def test_a_hook_that_raises_is_named_with_its_file_and_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hooks.py"
    path.write_text(BROKEN_HOOKS)
    assert conformance.check_methods(f"{path}:{name}", "fast", None, True) == 1
    (found,) = [each for each in document(capsys)["methods"][name] if each["result"] == "broken"]
    assert found["text"].startswith(RAISED[name])


LACKING = """
from methods import Method


class Bare(Method):
    pass


class Base(Method):
    density_promise = "dense"


class Half(Base):
    name = "half"
    version = 1


class Texts(Half):
    reference = "none"
    version = "1"


class Promises(Texts):
    version = 1
    density_promise = "none"
"""
LACKS = {
    "Bare": "Bare lacks the class attributes 'name', 'version', 'reference', 'density_promise': write into the "
    "class, for example, name = 'my_method', version = 1, reference = 'arXiv:1506.02626', density_promise = 'final'",
    "Half": "Half lacks the class attribute 'reference': write into the class, for example, reference = "
    "'arXiv:1506.02626'",
    "Texts": "Texts has version = '1': it must be int, such as 1",
    "Promises": "Promises has density_promise = 'none'; valid: dense, exact, final, emergent",
}


def test_missing_class_attributes_are_listed_with_how_to_write_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check every class of a file, except classes without a name that others inherit from."""
    path = tmp_path / "lacking.py"
    path.write_text(LACKING)
    assert conformance.check_methods(str(path), "fast", None, True) == 1
    found = {name: [each["text"] for each in findings] for name, findings in document(capsys)["methods"].items()}
    assert found == {name: [text] for name, text in LACKS.items()}


def test_a_class_without_attributes_has_a_row_too(tmp_path: Path) -> None:
    path = tmp_path / "lacking.py"
    path.write_text(LACKING)
    assert conformance.check_methods(f"{path}:Bare", "full", tmp_path / "to", False) == 1
    with (tmp_path / "to/conformance.csv").open(newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert (row["method"], row["version"], row["class"]) == ("Bare", "", "broken")


def test_the_table_gets_one_row_per_method_which_replaces_an_earlier_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "FULL", FULL[1:2])
    for wanted in ("static", f"{file}:Broken", "static"):
        conformance.check_methods(wanted, "full", tmp_path / "to", False)
    with (tmp_path / "to/conformance.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["method"] for row in rows] == ["Broken", "static"]
    assert list(rows[0]) == conformance.columns()
    assert rows[0]["masks_are_the_zeros_of_the_finalized_weights"] == "broken"
    assert rows[1]["units_are_whole"] == "not applicable"
    assert rows[0]["version"] == "3"
    assert all(row["commit"] and row["torch"] and row["machine"] for row in rows)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("date,price\n2026-01-01,3\n", "is no table of ours: it has no column 'method'"),
        ("", "is no table of ours: it has no column 'method'"),
        ("method,version,commit,torch,machine,price\n", "is no table of ours: unknown or repeated column 'price'"),
        ("method,version,commit,torch,machine\nset,1\n", "line 2: it does not have 5 values"),
    ],
)
def test_a_table_of_somebody_else_is_refused_before_the_checks_and_left_as_it_is(
    theirs: str, said: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.conformance, "examine", lambda *_: pytest.fail("the checks were run first"))
    path = tmp_path / "conformance.csv"
    path.write_text(theirs)
    refused = bench("doctor", "--method", "static", "--level", "full", "--to", tmp_path)
    assert refused.code == 2
    assert refused.error.startswith(f"error: {path}")
    assert refused.error.endswith(f"{said}; move it away, or choose another folder for --to")
    assert path.read_text() == theirs


def test_a_table_of_an_earlier_version_lacks_checks_and_is_joined(tmp_path: Path) -> None:
    (tmp_path / "conformance.csv").write_text("method,version,class,commit,torch,machine\nset,1,kept,abc,2.0,cpu\n")
    conformance.check_methods("static", "full", tmp_path, False)
    with (tmp_path / "conformance.csv").open(newline="") as opened:
        rows = {row["method"]: row for row in csv.DictReader(opened)}
    assert list(rows) == ["set", "static"]
    assert (rows["set"]["class"], rows["set"]["units_are_whole"]) == ("kept", "")


def test_the_committed_table_has_all_checks_and_nothing_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # all networks and processes
    with TABLE.open(newline="") as opened:
        table = csv.DictReader(opened)
        rows = {row["method"]: row for row in table}
    assert list(table.fieldnames or ()) == conformance.columns()
    assert rows
    assert list(rows) == registry.own()
    for name, row in rows.items():
        assert int(row["version"]) == methods.registry.method_class(name).version, name
        assert {row[column] for column in conformance.columns()[2:-3]} <= {"kept", "not applicable"}, name
