"""The numbers in a row of a results table, whose values may be text, and how two rows of a cell differ."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from benchmark.messages import shown
from benchmark.results import LATER, MEASURED, TIMES, Row

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() takes more, such as 1_000
NAN = ("", "nan", "NaN")
PERCENTAGES = ("test_accuracy", "test_top5_accuracy", "best_test_accuracy", "test_accuracy_at_min_density")
FRACTIONS = ("density", "density_at_best_test_accuracy", "min_density", "nonzero_density")
HIGHEST = {**dict.fromkeys(PERCENTAGES, 100.0), **dict.fromkeys(FRACTIONS, 1.0)}  # the lowest is 0


def number(text: str) -> float:
    """A number of a table; nan where it is empty. Raises ValueError."""
    if text in NAN:
        return math.nan
    if not NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise ValueError(f"{shown(text)} is no finite number")
    return value


def difference(row: Row, other: Row, *, may_lack: Collection[str] = LATER) -> str:
    """The first column in which two finished rows of one cell differ; empty if they do not.

    may_lack: columns that one of the two may lack. `analysis build` compares rows in the same way.
    """
    for name in ("status", *(name for name in MEASURED if name not in TIMES)):
        here, there = (found[name] if name == "status" else number(found[name]) for found in (row, other))
        absent = [value != value for value in (here, there)]  # NaN is not equal to itself
        if here != there and not all(absent) and not (name in may_lack and any(absent)):
            return name
    return ""
