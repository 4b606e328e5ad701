"""How numbers are written: shares within 0 and 100 %, and densities in a few digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from analysis.build import build
from analysis.data.conditions import summarize
from analysis.data.read import load
from analysis.output.numbers import CUT, percent, percentage, percentage_and_interval


def test_an_interval_of_a_share_ends_at_0_and_100_percent_and_says_so() -> None:
    assert percentage_and_interval(summarize([99.0, 99.8], expected=2)) == "99.40 ± 0.57 (n=2) [94.32, 100.00 cut]"
    assert percentage_and_interval(summarize([1.0, 1.2], expected=2)) == "1.10 ± 0.14 (n=2) [0.00, 2.37 cut]"
    assert percentage_and_interval(summarize([97.0, 97.2], expected=2)) == "97.10 ± 0.14 (n=2) [95.83, 98.37]"


def test_a_table_with_a_cut_interval_explains_it(tmp_path: Path) -> None:
    for accuracies, explained in (((99.0, 99.9), True), ((90.0, 90.1), False)):
        rows = [
            synthetic.cell("lenet-300-100", "dst", seed, dataset="digits", protocol="", alpha=5e-4, accuracy=accuracy)
            for seed, accuracy in enumerate(accuracies)
        ]
        out = tmp_path / str(explained)
        build(load([synthetic.write(out / "in", rows)]), out, only=["digits"])
        text = (out / "digits.md").read_text()
        assert ("100.00 cut]" in text, CUT in text) == (explained, explained)


def test_a_density_has_three_digits() -> None:
    assert [percent(value) for value in (0.05, 0.0248, 0.0524518, 1.0)] == ["5", "2.48", "5.25", "100"]


def test_a_density_that_was_found_is_short_in_labels_and_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.output.plotting.FORMATS", {})
    rows = [
        synthetic.cell("lenet-300-100", method, seed, dataset="digits", protocol="", density=0.0524518, kept=0.0524518)
        for method in ("static", "set", "dsr")
        for seed in (0, 1)
    ]
    build(load([synthetic.write(tmp_path / "in", rows)]), tmp_path / "out", only=["field", "paired-methods", "digits"])
    texts = [(tmp_path / "out" / f"{name}.md").read_text() for name in ("field", "paired-methods", "digits")]
    assert [("5.24518" in text, "0.0524518" in text) for text in texts] == [(False, False)] * 3
    assert ["5.25" in texts[0], "5.25 %" in texts[1], "density 0.05245" in texts[2]] == [True, True, True]


def test_a_number_that_no_seed_recorded_is_no_nan() -> None:
    assert percentage(summarize((), expected=3)) == "not recorded"
