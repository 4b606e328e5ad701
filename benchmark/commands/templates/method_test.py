"""my_name keeps the promises of every method, and its suite expands. Run it with pytest."""

from __future__ import annotations

from pathlib import Path

import methods
from benchmark import suites

FILE = Path(__file__).with_name("my_name.py")


def test_my_name_keeps_every_promise_of_a_method() -> None:
    suites.load_file(FILE)
    methods.conformance.check_method("my_name")


def test_the_suite_expands_to_cells_of_my_name() -> None:
    found = suites.load(str(FILE))
    assert "my_name" in {spec.method["name"] for spec in found.specs}
    assert found.specs == suites.load(str(FILE)).specs
