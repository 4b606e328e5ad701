"""VGG-16 scaled down: its exhibits are those of VGG-16 on its rows, and neither network's rows are in the other's."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import synthetic
import synthetic_figures

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.claims.table import claims
from analysis.exhibits.narrow_vgg16 import OF_PRINTED_LEVELS, SCALED_DOWN, SCHEDULES, WHOLE, WIDTHS
from analysis.output.exhibit import Written
from benchmark import suites
from benchmark.spec import Model
from benchmark.suites.cifar10_narrow import NARROW

Row = dict[str, Any]
FIGURES = ("figure3", "figure5", "figure6", "figure7")
NAMES = tuple(f"vgg16-narrow-{name}" for name in (*FIGURES, "claims", "schedules"))


@pytest.fixture(scope="module")
def whole() -> list[Row]:
    """VGG-16 with the alphas of suite cifar10_narrow that the made-up rows have."""
    alphas = {spec.method.get("alpha") for spec in suites.load("cifar10_narrow").specs}
    rows = [row for row in synthetic_figures.cifar10((0,)) if row["model"] == "vgg16"]
    return [row for row in rows if row["method"] == "dense" or row["alpha"] in alphas]


@pytest.fixture(scope="module")
def narrow(whole: list[Row]) -> list[Row]:
    """The same measurements, of the narrow network."""
    widths = list(NARROW.widths or ())
    return [synthetic.changed(row, lambda tree: tree["model"].update(widths=widths)) for row in whole]


@pytest.fixture(scope="module")
def scheduled(narrow: list[Row]) -> list[Row]:
    """The cell of Figure 5 with a schedule of weights only, and of thresholds only."""
    (cell,) = (row for row in narrow if (row["alpha"], json.loads(row["spec"])["optimizer"]["lr"]) == (5e-6, 0.1))
    cell = cell | {"protocol": ""}
    weights = synthetic.changed(cell, lambda tree: tree["optimizer"].update(schedule_of="weights"))
    return [weights, synthetic.changed(cell, lambda tree: tree["optimizer"].update(schedule_of="thresholds"))]


@pytest.fixture(scope="module")
def of_whole(tmp_path_factory: pytest.TempPathFactory, whole: list[Row]) -> dict[str, Written]:
    return made(tmp_path_factory.mktemp("whole"), whole)


@pytest.fixture(scope="module")
def of_narrow(tmp_path_factory: pytest.TempPathFactory, narrow: list[Row], scheduled: list[Row]) -> dict[str, Written]:
    return made(tmp_path_factory.mktemp("narrow"), [*narrow, *scheduled])


def made(folder: Path, rows: list[Row]) -> dict[str, Written]:
    """The exhibits of both networks, without the files of figures."""
    made_of = exhibits(Results(load([synthetic_figures.write(folder / "in", rows)])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])
        return {name: made_of[name](folder) for name in (*NAMES, *FIGURES, "claims")}


def measured(written: Written) -> list[Row]:
    """The exhibit's CSV without what names network and runs, in an order that does not depend on their names."""
    path = next(path for path in written.files if path.suffix == ".csv")
    named = ("run_id", "run_ids", "model", "panel")
    rows = [{k: v for k, v in row.items() if k not in named} for row in csv.DictReader(path.open())]
    return sorted(rows, key=str)


def test_each_exhibit_is_that_of_vgg16_on_the_narrow_rows(
    of_whole: dict[str, Written], of_narrow: dict[str, Written]
) -> None:
    for name in FIGURES:
        expected = measured(of_whole[name])
        found = measured(of_narrow[f"vgg16-narrow-{name}"])
        assert found == expected, name
        assert len(found) >= 4, name
    claims = {row["claim"]: row for row in measured(of_whole["claims"]) if row["section"] in ("5.2", "5.3")}
    found = measured(of_narrow["vgg16-narrow-claims"])
    assert found == sorted((claims[row["claim"]] for row in found), key=str)
    assert len(found) == len(claims) - len(OF_PRINTED_LEVELS)
    assert {row["result"] for row in found} > {"supported"}


def test_the_network_is_the_suites() -> None:
    assert Model(name=WHOLE, widths=WIDTHS) == NARROW


def test_every_title_says_that_it_is_scaled_down(of_narrow: dict[str, Written]) -> None:
    for name in NAMES:
        assert SCALED_DOWN in of_narrow[name].title, name
        assert not of_narrow[name].is_empty, name


def test_rows_of_one_width_are_in_no_exhibit_of_the_other(
    of_whole: dict[str, Written], of_narrow: dict[str, Written], narrow: list[Row]
) -> None:
    assert [of_whole[name].remark for name in NAMES] == ["not run"] * len(NAMES)
    assert [of_narrow[name].remark for name in FIGURES] == ["not run"] * len(FIGURES)
    ids = {row["run_id"] for row in narrow}
    assert ids & set(of_narrow["vgg16-narrow-claims"].run_ids)
    assert not ids & set(of_narrow["claims"].run_ids)


def test_the_papers_claims_do_not_read_the_narrow_network(tmp_path: Path, narrow: list[Row]) -> None:
    """It has l2, which the claims on ranges ask for, and the paper has no such network."""
    ranges = {"weight_max": 0.9, "threshold_min": 0.0, "threshold_max": 0.8, "q_min": -0.8, "q_max": 0.9}
    rows = [row | (ranges if row["method"] == "dst" else {}) for row in narrow]
    results = Results(load([synthetic_figures.write(tmp_path, rows)]))
    assert {c.id: c.test(results).result for c in claims() if c.section == "A.3"} == dict.fromkeys(
        ("weights-in-1", "thresholds-in-1", "q-in-1"), "not run"
    )


def test_findings_name_the_widths(of_narrow: dict[str, Written]) -> None:
    for name in ("vgg16-narrow-figure3", "vgg16-narrow-figure7"):
        assert of_narrow[name].finding.startswith("VGG-16 8-8-16-16-32-32-32-64-"), name


def test_the_schedules_stand_beside_the_cell_of_figure_5_and_in_no_other_exhibit(
    of_narrow: dict[str, Written], narrow: list[Row], scheduled: list[Row]
) -> None:
    """The made-up output layer keeps 10 % through epoch 80, and everything from 81 on."""
    own = {row["run_id"] for row in scheduled}
    written = of_narrow["vgg16-narrow-schedules"]
    assert own < set(written.run_ids)
    assert len(written.run_ids) == 3
    assert not any(own & set(of_narrow[name].run_ids) for name in of_narrow if name != "vgg16-narrow-schedules")
    kept = "10 % at epoch 80, 100 % at epoch 90, 100 % at epoch 160"
    assert written.finding == (
        f"What FC 2 keeps where the learning rate decays for weights and thresholds: {kept}; for weights only: {kept}; "
        f"for thresholds only: {kept}."
    )
    path = next(path for path in written.files if path.suffix == ".csv")
    rows = list(csv.DictReader(path.open()))
    assert Counter(row["decays"] for row in rows) == dict.fromkeys(SCHEDULES.values(), 160)


def test_without_a_finished_dst_cell_every_exhibit_says_not_run(tmp_path: Path, narrow: list[Row]) -> None:
    pending = [row | {"status": "pending"} for row in narrow if row["method"] == "dst"]
    dense = [row for row in narrow if row["method"] == "dense"]
    for name, rows in (("pending", pending), ("dense", [*pending, *dense])):
        found = made(tmp_path / name, rows)
        assert [found[each].remark for each in NAMES] == ["not run"] * len(NAMES), name


def test_a_title_fits_above_its_figure(tmp_path: Path, narrow: list[Row], scheduled: list[Row]) -> None:
    """A picture is as wide as its figure, not as its title."""
    made_of = exhibits(Results(load([synthetic_figures.write(tmp_path / "in", [*narrow, *scheduled])])))
    sizes = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "analysis.output.exhibit.save", lambda figure, out, name: sizes.update({name: widths(figure)}) or []
        )
        for name in ("vgg16-narrow-figure3", "vgg16-narrow-schedules"):
            made_of[name](tmp_path)
    assert all(drawn <= 1.01 * figure for drawn, figure in sizes.values()), sizes


def widths(figure: Any) -> tuple[float, float]:
    """In inches: of all that is drawn, and of the figure."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox().width
    plt.close(figure)
    return float(drawn), float(figure.get_figwidth())
