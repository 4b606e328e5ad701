"""Accuracy against density shows stated set-ups, and the printed number only in these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.data.comparable import groups
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.accuracy_density_and_flops import _compared, printed_for

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results"
NETWORK = "lenet-300-100"


def dst(**given: Any) -> dict[str, Any]:
    return synthetic.cell(NETWORK, "dst", 0, alpha=5e-4, **given)


def shown(rows: list[dict[str, Any]], folder: Path) -> list[str]:
    return [g.label for g in _compared(groups(Results(load([synthetic.write(folder, rows)])).conditions))]


def test_the_committed_results_have_a_panel_for_each_network_and_no_two_of_one_name() -> None:
    found = _compared(groups(Results(load([COMMITTED])).conditions))
    assert list(dict.fromkeys(g.model for g in found)) == [NETWORK, "lenet-5-caffe", "lstm-a", "lstm-b"]
    assert len({g.label for g in found}) == len(found)
    assert all(printed_for(g) for g in found)


def test_other_set_ups_are_left_to_their_exhibit_where_a_protocol_states_one(tmp_path: Path) -> None:
    others = [dst(protocol="", epochs=40), dst(protocol="", sections={"data": {"standardize": True}})]
    assert shown([dst(), *others], tmp_path / "all") == ["Lenet-300-100, lr 0.01, 20 epochs"]
    assert len(shown(others, tmp_path / "others")) == 2


@pytest.mark.parametrize(("given", "stars"), [({}, 1), ({"protocol": ""}, 0)])
def test_the_printed_number_stands_only_in_a_protocol(given: dict[str, str], stars: int, tmp_path: Path) -> None:
    (group,) = groups(Results(load([synthetic.write(tmp_path, [dst(**given)])])).conditions)
    assert len(printed_for(group)) == stars


@pytest.mark.parametrize(("rate", "stars"), [(0.1, 2), (0.01, 0)])
def test_the_printed_number_of_table_2_stands_at_its_learning_rate(rate: float, stars: int, tmp_path: Path) -> None:
    row = synthetic.cell("vgg16", "dst", 0, dataset="cifar10", alpha=5e-6, lr=rate, epochs=160)
    (group,) = groups(Results(load([synthetic.write(tmp_path, [row])])).conditions)
    assert len(printed_for(group)) == stars
