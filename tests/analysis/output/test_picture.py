"""The picture of accuracy against density: where its points, bars and scales are drawn."""

from __future__ import annotations

import math
from dataclasses import replace

from analysis.data.conditions import Summary, summarize
from analysis.output.picture import BOTTOM, LEFT, RIGHT, TOP, Mark, Panel, picture


def mark(density: float, *accuracies: float, method: str = "dst", run_id: str = "a") -> Mark:
    kept, accuracy = summarize([density], expected=1), summarize(accuracies, expected=len(accuracies))
    return Mark(label=method, method=method, density=kept, accuracy=accuracy, seeds=(0,), run_ids=(run_id,))


def drawn(*marks: Mark, dense: Summary | None = None) -> tuple[list[tuple[float, float]], list[tuple[str, ...]]]:
    """(x, y) of each point, and what it says; of one panel."""
    (found,) = picture([Panel(network="N", setup="", marks=marks, dense=dense)], lambda m: "#", {"b": "better"}).leading
    return [(dot.x, dot.y) for dot in found.dots], [dot.lines for dot in found.dots]


def test_sparser_is_to_the_left_and_better_is_above() -> None:
    places, _ = drawn(mark(10, 98.0), mark(1, 95.0), mark(3.1623, 96.5))
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert math.isclose(places[1][0], (LEFT + RIGHT) / 2, abs_tol=0.2)
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in places)


def test_the_papers_points_are_drawn_last() -> None:
    _, lines = drawn(mark(1, 95.0), replace(mark(2, 96.0), run_ids=(), exhibit="table1"), mark(3, 95.5))
    assert [said[1].startswith("printed in the paper") for said in lines] == [False, False, True]


def test_no_bar_reaches_above_100_percent() -> None:
    panel = Panel(network="N", setup="", marks=(mark(5, 99.0, 100.0), mark(5, 90.0)))
    found = picture([panel], lambda m: "#", {}).leading[0]
    top = min(y for bar in found.dots[1].bars for y in (bar[1], bar[3]))
    assert max(float(label) for _, label in found.y_ticks) <= 100
    assert top == TOP  # the mean is 99.5 and its deviation 0.71: the bar ends at 100 %, the top
    assert "cut]" in found.dots[1].lines[1]


def test_a_point_far_below_is_at_the_edge_and_says_so() -> None:
    near = [mark(5, 95.0 + i / 10, run_id=str(i)) for i in range(8)]
    places, lines = drawn(*near, mark(5, 20.0))
    assert places[0][1] == BOTTOM
    assert lines[0][-1] == "below the scale"
    assert [said[-1] for said in lines[1:]] == ["n=1: seed 0"] * 8


def test_a_single_point_has_a_scale() -> None:
    places, lines = drawn(mark(5, 95.0, run_id="b"))
    assert LEFT < places[0][0] < RIGHT
    assert lines[0][-1] == "the printed number: better"


def test_the_fullest_panel_of_each_network_leads() -> None:
    def panel(network: str, setup: str, count: int) -> Panel:
        marks = tuple(mark(5, 95.0, run_id=str(i)) for i in range(count))
        return Panel(network=network, setup=setup, marks=marks)

    panels = [panel("A", "10 epochs", 1), panel("A", "20 epochs", 3), *(panel(n, "", 1) for n in "BCDE")]
    found = picture(panels, lambda m: "#", {})
    first = [(d.panel.network, d.panel.setup) for d in found.leading]
    assert first == [("A", "20 epochs"), ("B", ""), ("C", ""), ("D", "")], "as many networks as Table 1 has"
    assert [(d.panel.network, d.panel.setup) for d in found.others] == [("A", "10 epochs"), ("E", "")]


def test_a_point_without_accuracy_or_weights_is_not_drawn() -> None:
    lost = replace(mark(7, 10.0), accuracy=summarize([], expected=1), front=True)
    places, _ = drawn(mark(5, 95.0), lost, mark(0, 10.0), dense=summarize([], expected=1))
    assert len(places) == 1
    assert picture([Panel(network="N", setup="", marks=(mark(0, 10.0),))], lambda m: "#", {}).leading == ()


def test_a_point_that_trained_for_other_epochs_says_so_and_so_does_the_caption() -> None:
    longer = replace(mark(5, 98.0, method="lottery"), epochs=120)
    panel = Panel(network="N", setup="", marks=(replace(mark(1, 95.0), epochs=20), longer), epochs=20)
    (found,) = picture([panel], lambda m: "#", {}).leading
    assert [said for dot in found.dots for said in dot.lines if "epochs" in said] == [
        "trained for 120 epochs; the set-up has 20"
    ]
    assert panel.finding == (
        "Most accurate: lottery, 98.00 % at 5 % of the weights after 120 epochs. "
        "Trained for other than 20 epochs: lottery 120."
    )


def test_the_marker_of_points_below_the_scale_is_in_the_legend_where_there_are_any() -> None:
    near = [mark(5, 95.0 + i / 10, run_id=str(i)) for i in range(8)]
    made = [Panel(network="N", setup="", marks=marks) for marks in ((*near, mark(5, 20.0)), tuple(near))]
    assert [bool(picture([panel], lambda m: "#", {}).below) for panel in made] == [True, False]
