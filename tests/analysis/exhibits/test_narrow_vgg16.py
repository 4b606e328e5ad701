"""VGG-16 scaled down: its exhibits are those of VGG-16 on its rows, and neither network's rows are in the other's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import synthetic
import synthetic_figures

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.narrow_vgg16 import MODEL, OF_THE_PRINTED_NUMBERS, SCALED_DOWN, WIDTHS
from analysis.output.exhibit import Written
from benchmark import suites
from benchmark.spec import Model
from benchmark.suites.cifar10_narrow import NARROW

Row = dict[str, Any]
FIGURES = ("figure3", "figure5", "figure6", "figure7")
NAMES = tuple(f"vgg16-narrow-{name}" for name in (*FIGURES, "claims"))


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
def of_whole(tmp_path_factory: pytest.TempPathFactory, whole: list[Row]) -> dict[str, Written]:
    return made(tmp_path_factory.mktemp("whole"), whole)


@pytest.fixture(scope="module")
def of_narrow(tmp_path_factory: pytest.TempPathFactory, narrow: list[Row]) -> dict[str, Written]:
    return made(tmp_path_factory.mktemp("narrow"), narrow)


def made(folder: Path, rows: list[Row]) -> dict[str, Written]:
    """The exhibits of both networks, without the files of figures: test_build.py writes them."""
    made_of = exhibits(Results(load([synthetic_figures.write(folder / "in", rows)])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])
        return {name: made_of[name](folder) for name in (*NAMES, *FIGURES, "claims")}


def measured(written: Written) -> list[Row]:
    """The exhibit's CSV without what names the runs, in an order that does not depend on their names."""
    path = next(path for path in written.files if path.suffix == ".csv")
    rows = [{k: v for k, v in row.items() if k not in ("run_id", "run_ids")} for row in csv.DictReader(path.open())]
    return sorted(rows, key=str)


def test_each_exhibit_is_that_of_vgg16_on_the_narrow_rows(
    of_whole: dict[str, Written], of_narrow: dict[str, Written]
) -> None:
    for name in FIGURES:
        expected = [row for row in measured(of_whole[name]) if row.get("model", "vgg16") == "vgg16"]
        found = measured(of_narrow[f"vgg16-narrow-{name}"])
        assert found == expected, name
        assert len(found) >= 4, name
    claims = {row["claim"]: row for row in measured(of_whole["claims"]) if row["section"] in ("5.2", "5.3")}
    found = measured(of_narrow["vgg16-narrow-claims"])
    assert found == sorted((claims[row["claim"]] for row in found), key=str)
    assert len(found) == len(claims) - len(OF_THE_PRINTED_NUMBERS)
    assert {row["result"] for row in found} > {"supported"}


def test_the_network_is_the_suites() -> None:
    assert Model(name=MODEL, widths=WIDTHS) == NARROW


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
