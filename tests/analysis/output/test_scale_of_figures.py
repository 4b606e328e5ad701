"""What a figure leaves outside of its scale, and which methods it draws alike."""

from __future__ import annotations

import math

import pytest

from analysis.output.plotting import KNOWN, main_range, small_multiples, unnamed


def test_a_value_far_from_the_others_is_outside_of_the_scale() -> None:
    accuracies = [95.0, 96.0, 96.5, 97.0, 97.2, 97.5, 98.0, 98.1, 21.4]
    low, high = main_range(accuracies)
    assert [value for value in accuracies if not low <= value <= high] == [21.4]
    assert low == pytest.approx(96.0 - 3 * 1.5)  # quartiles of the nine: 96.0 and 97.5
    assert high == pytest.approx(97.5 + 3 * 1.5)


def test_few_values_are_all_inside() -> None:
    assert main_range([95.0, 96.0, 96.5, 97.0, 97.2, 97.5, 21.4]) == (-math.inf, math.inf)


def test_methods_are_drawn_alike_only_where_there_are_many_and_never_those_of_the_paper() -> None:
    few = [*KNOWN, "mine", "rigl"]
    assert unnamed(few) == []
    assert unnamed([*few, "snip"]) == ["mine", "rigl", "snip"]


def test_a_row_of_panels_is_as_high_as_its_highest() -> None:
    figure, axes = small_multiples(3, columns=2, size=(3.0, [1.0, 2.0, 4.0]), title="title")
    assert len(axes) == 3
    assert axes[0].get_gridspec().get_height_ratios() == [2.0, 4.0]
    assert figure.get_size_inches()[1] == pytest.approx(6.18)
