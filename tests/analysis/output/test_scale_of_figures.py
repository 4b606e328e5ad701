"""What a figure leaves outside of its scale, and which methods it draws alike."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.output.plotting import (
    KNOWN,
    draw_far_off,
    main_range,
    panels_abreast,
    panels_of_rows,
    save,
    small_multiples,
    unnamed,
)


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


def test_four_panels_stand_two_by_two_rather_than_three_and_one() -> None:
    assert [panels_abreast(count, 3) for count in (1, 2, 3, 4, 5)] == [1, 2, 3, 2, 3]
    assert panels_abreast(4, 4) == 4, "pairs that belong together stay in a row"


def test_two_layouts_that_differ_in_the_last_bits_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for number, shift in enumerate((0.0, 1e-13)):
        figure, (axis,) = small_multiples(1, columns=1, size=(3.0, 2.0), title="title")
        figure.set_layout_engine("none")
        axis.set_position([0.123 + shift, 0.2, 0.7, 0.6 + shift])
        axis.plot([0, 1], [0, 1])
        out = tmp_path / str(number)
        out.mkdir()
        written.append([path.read_bytes() for path in save(figure, out, "figure")])
    assert written[0] == written[1]


def test_a_value_off_the_scale_is_an_arrow_at_its_edge() -> None:
    _, (axis,) = small_multiples(1, columns=1, size=(3.0, 2.0), title="title")
    limits = (90.0, 98.0)
    assert not draw_far_off(axis, 95.0, 0, limits, colour="black", digits=".2f")
    assert draw_far_off(axis, 21.4, 1, limits, colour="black", digits=".2f")
    assert [(line.get_xdata()[0], line.get_ydata()[0], line.get_marker()) for line in axis.lines] == [(90.0, 1, "<")]
    assert [text.get_text() for text in axis.texts] == ["21.40"]


def test_rows_of_neighbours_have_the_same_height() -> None:
    _, axes = panels_of_rows([5, 2, 3], columns=2, width=3.0, height=(1.0, 0.3), title="title")
    assert [axis.get_ylim() for axis in axes] == [(4.5, -0.5), (4.5, -0.5), (2.5, -0.5)]
    _, axes = panels_of_rows([9, 2, 3, 4], columns=3, width=3.0, height=(1.0, 0.3), title="title")
    assert [axis.get_ylim()[0] for axis in axes] == [8.5, 8.5, 3.5, 3.5], "four panels stand two by two"
