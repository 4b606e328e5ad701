"""The rule of docs/verdicts.md: each verdict, each reason for none, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.build import verdicts_beside_runs
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits import table1_to_3, verdict_tables
from analysis.exhibits.verdicts import (
    Judged,
    Verdict,
    counts,
    finding,
    judge,
    p_of_claims,
    table_verdicts,
    verdict_rows,
)
from analysis.output.numbers import p_equals
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison

MODEL = "lenet-300-100"  # printed: 97.69 % at 2.48 %, alpha 5e-4
SPREAD = (-0.02, 0.0, 0.02)


def results(folder: Path, rows: Sequence[dict[str, Any]]) -> Results:
    return Results(load([synthetic.write(folder, rows)]))


def cells(accuracy: float, density: float, *, seeds: int = 3, **changes: Any) -> list[dict[str, Any]]:
    """Dense and sparse cells whose last epoch has about this accuracy and this density in percent."""
    found = []
    for seed in range(seeds):
        shift = SPREAD[seed % 3]
        kept = density / 100 * math.exp(shift)
        sparse = {"alpha": 5e-4, "accuracy": accuracy + shift, "kept": kept, "kept_best": kept, **changes}
        found += [synthetic.cell(MODEL, "dense", seed, accuracy=98.16), synthetic.cell(MODEL, "dst", seed, **sparse)]
    return found


def counted(folder: Path, rows: Sequence[dict[str, Any]]) -> Verdict:
    found = table_verdicts("table1", results(folder, rows).conditions)
    (verdict,) = (v for v in found if v.target.model == MODEL and v.counts)
    return verdict


@pytest.mark.parametrize(
    ("accuracy", "density", "verdict"),
    [
        (97.70, 2.5, "reproduced"),
        (98.00, 2.5, "better"),
        (98.00, 1.0, "better"),
        (97.20, 2.5, "not reproduced"),  # less accurate
        (97.70, 8.3, "not reproduced"),  # too dense
        (98.00, 8.3, "not reproduced"),  # more accurate, and too dense
        (97.70, 1.0, "not reproduced"),  # too sparse, and no better
        (97.89, 2.5, "inconclusive (n=3)"),  # at the edge of the margin
        (97.70, 3.1, "inconclusive (n=3)"),  # at the edge of the factor
    ],
)
def test_the_rule(tmp_path: Path, accuracy: float, density: float, verdict: str) -> None:
    assert counted(tmp_path, cells(accuracy, density)).verdict == verdict


def test_one_seed_is_inconclusive_and_none_is_not_run(tmp_path: Path) -> None:
    assert counted(tmp_path / "a", cells(97.70, 2.5, seeds=1)).verdict == "inconclusive (n=1)"
    assert counted(tmp_path / "b", cells(97.70, 2.5, status="pending")).verdict == "not run"
    assert counted(tmp_path / "c", cells(97.70, 2.5, alpha=1e-3)).verdict == "not run"
    assert counted(tmp_path / "d", cells(97.70, 2.5, departs="drift: torch: a -> b")).verdict == "not run"


def test_a_finding_gives_the_p_that_decided(tmp_path: Path) -> None:
    """Corrected for a claim that is shown; a p is never 0."""
    rows = [*cells(99.0, 9.0, seeds=10), *cells(97.70, 2.5, seeds=10, alpha=1e-3)]
    found = table_verdicts("table1", results(tmp_path, list({row["run_id"]: row for row in rows}.values())).conditions)
    (pair,) = (v for v in found if v.match and v.match.condition.alpha == 1e-3 and v.epoch == "last")
    assert pair.verdict == "reproduced"
    assert f"reproduced at alpha 0.001, last ({p_equals(pair.adjusted)})" in finding("Table 1", found)
    assert [p_equals(p) for p in (0.0331, 4.9e-4)] == ["p = 0.033", "p < 0.001"]


def test_diverged_seeds_are_counted_beside_the_verdict_of_the_others(tmp_path: Path) -> None:
    lost = synthetic.cell(MODEL, "dst", 3, alpha=5e-4, status="diverged")
    verdict = counted(tmp_path, [*cells(97.70, 2.5), lost])
    assert (verdict.verdict, verdict.n, verdict.expected) == ("reproduced (n=3/4, 1 diverged)", 3, 4)


def test_a_cell_that_is_in_other_suites_too_keeps_its_verdict(tmp_path: Path) -> None:
    rows = [row | {"protocol": "paper;official;quick"} for row in cells(97.70, 2.5)]
    assert counted(tmp_path, rows).verdict == "reproduced"


def test_beside_a_runs_top_1_accuracy_stands_the_verdict_on_it(tmp_path: Path) -> None:
    """Table 3 prints two densities of DST, each with a top-5 accuracy, which has a verdict of its own."""
    sections = {"optimizer": {"weight_decay": 1e-4}}
    rows = [
        synthetic.cell("resnet50", "dst", seed, dataset="imagenet", alpha=5e-6, lr=0.1, epochs=90, accuracy=74.0,
                       kept=0.2, sections=sections) | {"test_top5_accuracy": 50.0}
        for seed in range(3)
    ]  # fmt: skip
    beside = [set(run_ids) for _, run_ids in verdicts_beside_runs(results(tmp_path, rows)) if run_ids]
    assert beside == 2 * [{row["run_id"] for row in rows}]


def test_the_verdict_is_on_the_stated_alpha_and_the_nearest_stands_beside(tmp_path: Path) -> None:
    rows = [*cells(97.90, 8.3), *(row for row in cells(97.70, 2.5, alpha=1e-3) if row["method"] == "dst")]
    found = table_verdicts("table1", results(tmp_path, rows).conditions)
    shown = {(v.match.label, v.decides): v.verdict for v in found if v.match and v.epoch == "last"}
    assert shown == {
        ("alpha 0.0005", True): "not reproduced",
        ("alpha 0.001", False): "reproduced",
    }


def test_quoted_rows_get_no_verdict_and_unprinted_alphas_are_judged_where_one_is_near(tmp_path: Path) -> None:
    found = table_verdicts("table2", results(tmp_path, synthetic.vgg16()).conditions)
    shown = {v.cell: v.verdict for v in found if v.epoch == "last" and v.decides}
    assert shown["VGG-16, Sparse Momentum at 10 %"] == "no verdict (quoted)"
    assert shown["VGG-16, DST at 3.76 %"].startswith(("reproduced", "not reproduced", "better", "inconclusive"))
    far = table_verdicts("table2", results(tmp_path, [r for r in synthetic.vgg16() if r["alpha"] != 1e-5]).conditions)
    shown = {v.cell: v.verdict for v in far if v.epoch == "last" and v.decides}
    assert shown["VGG-16, DST at 3.76 %"] == "not run (no alpha within a factor of 1.25)"


def test_a_paper_of_few_runs_makes_the_verdict_less_sure(tmp_path: Path) -> None:
    verdict = counted(tmp_path, cells(97.70, 2.5))
    assert verdict.verdict == "reproduced"
    assert verdict.sensitivity[1] == "inconclusive (n=3)"  # 97.69 ± 0.14 of one run
    assert set(verdict.sensitivity) == {1, 3, 5}


def test_holm_runs_over_the_cells_of_a_table(tmp_path: Path) -> None:
    edge = Comparison(0.0, 0.06, 4)
    sharp = Comparison(0.0, 0.001, 4)
    alone = judge([(edge, sharp, 0.2)])[0]
    assert (alone.shown, alone.claim) == ("reproduced", "reproduced")
    assert 0.0125 < alone.p < 0.05
    crowd = judge([(edge, sharp, 0.2), *[(Comparison(0.3, 0.2, 4), sharp, 0.2)] * 3])
    assert crowd[0] == Judged("reproduced", alone.p, pytest.approx(4 * alone.p))
    assert crowd[0].shown == ""


def test_the_counted_verdicts_are_corrected_apart_from_all_other_pairs(tmp_path: Path) -> None:
    """A ladder of alphas costs the counted verdict nothing; each of its pairs pays for all of them."""
    before = counted(tmp_path / "a", cells(97.70, 2.5))
    ladder = [r for i in (2, 3, 4) for r in cells(97.62, 2.45, alpha=5e-4 * i) if r["method"] == "dst"]
    after = table_verdicts("table1", results(tmp_path / "b", [*cells(97.70, 2.5), *ladder]).conditions)
    (own,) = (v for v in after if v.target.model == MODEL and v.counts)
    assert (own.p, own.adjusted) == (before.p, before.adjusted)
    others = sorted((v for v in after if v.match and not v.counts and v.p == v.p), key=lambda v: v.p)
    assert {v.match.epoch for v in others if v.match} == {"last", "best"}
    assert others[0].adjusted == pytest.approx(min(1.0, len(others) * others[0].p))


def test_a_finding_names_the_readings_that_reproduce_a_number(tmp_path: Path) -> None:
    rows = cells(97.70, 8.3, best=97.70, kept_best=0.0249)
    found = table_verdicts("table1", results(tmp_path, rows).conditions)
    text = finding("Table 1", found)
    assert "at the last epoch: 1 not reproduced, 3 not run." in text
    assert "At other readings or alphas: Lenet-300-100, DST at 2.48 % reproduced at alpha 0.0005, best accuracy" in text


def test_claims_can_be_read_off_the_90_percent_intervals() -> None:
    accuracy = Comparison(0.1, 0.05, 4)
    low, high = accuracy.interval(confidence=0.90)
    assert p_of_claims(accuracy, Comparison(0, 0.001, 4), high)["reproduced"] == pytest.approx(0.05)
    assert p_of_claims(accuracy, Comparison(0, 0.001, 4), low)["better"] == pytest.approx(0.05, abs=1e-9)


def test_a_density_of_zero_is_no_reproduction(tmp_path: Path) -> None:
    assert counted(tmp_path, cells(97.70, 2.5, kept=0.0, kept_best=0.0)).verdict == "not reproduced"


def test_every_printed_cell_has_a_counted_verdict_with_and_without_runs(tmp_path: Path) -> None:
    for rows in ([synthetic.cell(MODEL, "dst", 0, alpha=5e-4, status="pending")], cells(97.70, 2.5)):
        found = verdict_rows(results(tmp_path, rows))
        measured = {v.target for v in found if v.counts}
        tables = ("table1", "table2", "table3")
        assert measured == {t for name in tables for t in printed.targets(name) if t.origin == "measured"}
        assert sum(counts(found).values()) == len(measured) == 12


def test_every_table_is_as_wide_as_its_head_and_escaped_for_latex(tmp_path: Path) -> None:
    found = results(tmp_path / "in", cells(97.70, 2.5))
    for name, make in {**table1_to_3.makers(found), **verdict_tables.makers(found)}.items():
        make(tmp_path)
        table = [line for line in (tmp_path / f"{name}.md").read_text().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1, name
        body = (tmp_path / f"{name}.tex").read_text().split("\\midrule")[1].split("\\bottomrule")[0]
        assert not {"±", "×", "−", "<"} & set(body.replace("$<$", "")), name
        assert "%" not in body.replace("\\%", "")


def test_the_summary_counts_in_its_finding_and_names_its_runs(tmp_path: Path) -> None:
    written = verdict_tables.makers(results(tmp_path, cells(97.70, 2.5)))["verdicts"](tmp_path)
    assert "at the last epoch: 1 reproduced, 11 not run. At other readings or alphas: " in written.finding
    assert len(written.run_ids) == 6
    assert "| Table 1 | Lenet-300-100, DST at 2.48 % |" in (tmp_path / "verdicts.md").read_text()
