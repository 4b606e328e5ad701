"""A condition whose seeds all diverged was run: nothing says that it was not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import synthetic
import synthetic_figures

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.claims.appendix import reset_widens_alphas
from analysis.exhibits.claims.claim import NotRunError, stated
from analysis.exhibits.table1_to_3 import cell, paper_table
from analysis.exhibits.verdicts import table_verdicts
from analysis.output.exhibit import Written

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def lost(rows: Sequence[Row], *, status: str = "diverged", alpha: float | None = None) -> list[Row]:
    """The rows, with DST's of this alpha, or all of DST's, as a cell that was lost has them."""
    kept = ("run_id", "suite", "dataset", "model", "method", "alpha", "density_target", "seed", "protocol", "spec")
    return [
        {**{name: row[name] for name in kept}, "status": status, "departs": "", "commit": "c0ffee"}
        if row["method"] == "dst" and alpha in (None, row["alpha"])
        else row
        for row in rows
    ]


def vgg16() -> list[Row]:
    return [row for row in synthetic_figures.cifar10() if row["model"] == "vgg16"]


def made(folder: Path, rows: Sequence[Row], *names: str) -> list[Written]:
    found = exhibits(Results(load([synthetic_figures.write(folder / "in", rows)])))
    return [found[name](folder) for name in names]


def lenet(*, status: str = "done", seeds: int = 3, **given: Any) -> list[Row]:
    dense = [synthetic.cell("lenet-300-100", "dense", seed) for seed in range(seeds)]
    sparse = [synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4, **given) for seed in range(seeds)]
    return lost([*dense, *sparse], status=status) if status != "done" else [*dense, *sparse]


def results(folder: Path, rows: Sequence[Row]) -> Results:
    return Results(load([synthetic.write(folder, rows)]))


def test_a_number_whose_seeds_are_all_lost_is_inconclusive_and_says_how_many(tmp_path: Path) -> None:
    found = table_verdicts("table1", results(tmp_path, lenet(status="diverged")).conditions)
    (verdict,) = (v for v in found if v.target.model == "lenet-300-100" and v.counts)
    assert verdict.verdict == "inconclusive (n=0/3, 3 diverged)"


def test_a_table_says_how_the_seeds_were_lost(tmp_path: Path) -> None:
    table = paper_table("table1", results(tmp_path, lenet(status="diverged")).conditions)
    (line,) = (line for line in table.lines if (line.model, line.source) == ("lenet-300-100", "ours"))
    assert line.status == "3 diverged (n=0/3)"
    assert [cell(line, "last", name) for name in ("remaining", "sparse")] == 2 * ["3 diverged (n=0/3)"]
    assert cell(line, "last", "dense").endswith("(n=3) [97.00, 97.00]")


def test_a_claim_whose_cells_are_all_lost_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match=r"^3 diverged$"):
        stated(results(tmp_path / "lost", lenet(status="diverged")), "lenet-300-100", alpha=5e-4)
    with pytest.raises(NotRunError, match=r"^$"):
        stated(results(tmp_path / "none", lenet(status="pending")), "lenet-300-100", alpha=5e-4)


def test_figures_name_an_alpha_whose_seeds_are_all_lost(tmp_path: Path) -> None:
    names = ("figure3", "figure5", "figure7")
    three, five, seven = made(tmp_path / "one", lost(vgg16(), alpha=5e-6), *names)
    assert "vgg16 dst alpha 5e-06: n=0/3" in three.remark
    assert five.remark == "3 diverged"
    assert seven.remark.startswith("alpha 5e-06: 3 diverged")
    every = made(tmp_path / "all", lost(vgg16()), *names)
    assert [written.remark for written in every] == ["24 diverged", "3 diverged", "24 diverged"]
    assert [written.files for written in every] == [(), (), ()]


def test_the_interpolation_names_networks_whose_cells_are_all_lost(tmp_path: Path) -> None:
    """And an alpha at which a seed keeps nothing, which has no logarithm."""
    empty = [synthetic.cell("lstm-a", "dst", seed, alpha=3e-3, kept=0.0, kept_best=0.0) for seed in range(2)]
    one = [synthetic.cell("lstm-a", "dst", seed, alpha=1e-3, kept=0.02) for seed in range(2)]
    found = results(tmp_path / "in", [*lenet(status="diverged"), *one, *empty])
    exhibits(found)["alpha-interpolation"](tmp_path)
    text = (tmp_path / "alpha-interpolation.md").read_text()
    assert "No finished runs: Lenet-300-100 (3 diverged), Lenet-5-Caffe, LSTM-b," in text
    assert "| 1 of 2 alphas usable |" in text
    assert "Left out of the line, because a seed keeps no weights: LSTM-a alpha 0.003, last;" in text


def test_the_interpolation_says_why_an_alpha_is_not_on_the_line_and_what_the_stated_one_keeps(tmp_path: Path) -> None:
    """Only the rows at 2e-3 have the lowest density of a training."""
    sparse = [
        synthetic.cell("lenet-300-100", "dst", seed, alpha=alpha, kept=kept, kept_best=0.1) | recorded
        for alpha, kept, recorded in ((1e-3, 0.05, {}), (2e-3, 0.02, {"min_density": 0.02}))
        for seed in range(3)
    ]
    found = results(tmp_path / "in", [*lenet(kept=0.0), *sparse])
    exhibits(found)["alpha-interpolation"](tmp_path)
    text = (tmp_path / "alpha-interpolation.md").read_text()
    assert "because a seed keeps no weights: Lenet-300-100 alpha 0.0005, last." in text
    unrecorded = [f"Lenet-300-100 alpha {alpha}, lowest" for alpha in ("0.0005", "0.001")]
    assert f"because the density of a seed is not recorded: {'; '.join(unrecorded)}." in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| Table 1 | Lenet-300-100")]
    assert [(line[2], line[5]) for line in lines] == [
        ("last", "0.00 ± 0.00 (n=3)"), ("best", "8.00 ± 0.00 (n=3)"), ("lowest", "not recorded"),
    ]  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_alpha_0_is_on_no_logarithmic_axis_and_in_no_interpolation(tmp_path: Path) -> None:
    zero = [synthetic.cell("lenet-300-100", "dst", seed, alpha=0.0, kept=0.9) for seed in range(3)]
    more = [synthetic.cell("lenet-300-100", "dst", seed, alpha=1e-3, kept=0.02) for seed in range(3)]
    for name, rows in (("with", [*lenet(), *more, *zero]), ("without", [*lenet(), *more]), ("zero", zero)):
        found = exhibits(results(tmp_path / name, rows))
        (tmp_path / name / "out").mkdir()
        written = {key: found[key](tmp_path / name / "out") for key in ("alpha-interpolation", "mnist-figure3")}
        remark = written["mnist-figure3"].remark
        assert ("not on the logarithmic axis: lenet-300-100 dst alpha 0" in remark) == (name != "without")
    for file in ("alpha-interpolation.csv", "mnist-figure3.csv"):
        assert (tmp_path / "with/out" / file).read_text() == (tmp_path / "without/out" / file).read_text()
    text = (tmp_path / "with/out/alpha-interpolation.md").read_text()
    assert "Left out of the line, because 0 has no logarithm: Lenet-300-100 alpha 0, last;" in text
    assert not (tmp_path / "zero/out/mnist-figure3.csv").exists()


@pytest.mark.parametrize(("status", "result"), [("diverged", "supported"), ("cancelled", "not run")])
def test_a_cancelled_cell_says_nothing_of_what_an_alpha_trains(tmp_path: Path, status: str, result: str) -> None:
    without = lost([row for row in lenet(reset_density=None) if row["method"] == "dst"], status=status)
    folder = synthetic.write(tmp_path, [*lenet(), *without])
    layers = [
        {"run_id": row["run_id"], "parameter": "fc1.weight", "weights": 100, "kept": 5}
        for row in lenet()
        if row["method"] == "dst"
    ]
    synthetic.save(folder / "layers.csv", ("run_id", "parameter", "weights", "kept"), layers)
    assert reset_widens_alphas(Results(load([folder]))).result == result


def test_a_reading_that_no_finished_seed_recorded_is_not_said_to_be_not_run(tmp_path: Path) -> None:
    rows = [{**row, "min_density": None, "test_accuracy_at_min_density": None} for row in lenet()]
    table = paper_table("table1", results(tmp_path, rows).conditions, [])
    (line,) = [line for line in table.lines if line.source == "ours" and line.method == "dst" and line.values]
    assert cell(line, "lowest", "remaining") == "not recorded (n=0/3)"
