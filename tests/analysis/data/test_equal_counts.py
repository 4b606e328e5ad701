"""Baselines of equal counts: one condition, although each seed has another density."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from analysis.data.comparable import density_matches, groups
from analysis.data.conditions import Condition, Results
from analysis.data.read import load

MODEL = "lenet-300-100"
KEPT = (0.0489, 0.0487, 0.0521)


def results(folder: Path, *rows: dict[str, object]) -> Results:
    found = [synthetic.cell(MODEL, "dst", seed, alpha=6.6e-4, kept=kept) for seed, kept in enumerate(KEPT)]
    return Results(load([synthetic.write(folder, [*found, *rows])]))


def of(found: Results, method: str) -> list[Condition]:
    return [condition for condition in found.conditions if condition.method == method]


def test_baselines_of_equal_counts_are_one_condition(tmp_path: Path) -> None:
    baselines = [synthetic.cell(MODEL, m, s, density=kept) for m in ("set", "static") for s, kept in enumerate(KEPT)]
    found = results(tmp_path, *baselines)
    (condition,) = of(found, "set")
    assert (condition.seeds, condition.density) == ("n=3", pytest.approx(sum(KEPT) / 3))
    (group,) = groups(found.conditions)
    (match,) = density_matches(group)
    assert [(c.method, len(c.done)) for c in match.conditions] == [("dst", 3), ("set", 3), ("static", 3)]


def test_a_density_that_was_chosen_stays_a_condition_of_its_own(tmp_path: Path) -> None:
    chosen = [synthetic.cell(MODEL, "set", seed, density=KEPT[0]) for seed in range(2)]
    assert [c.density for c in of(results(tmp_path, *chosen), "set")] == [KEPT[0]]


def test_the_count_of_another_seed_or_setting_is_no_equal_count(tmp_path: Path) -> None:
    crossed = [synthetic.cell(MODEL, "set", seed, density=KEPT[1 - seed]) for seed in range(2)]
    assert len(of(results(tmp_path, *crossed), "set")) == 2
    other = [synthetic.cell("lenet-5-caffe", "set", seed, density=KEPT[seed]) for seed in range(2)]
    assert len(of(results(tmp_path / "other", *other), "set")) == 2
