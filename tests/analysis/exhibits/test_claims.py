"""Every claim of the paper on tables where it holds, where it does not, and where nothing was run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import synthetic
import synthetic_claims

from analysis.build import build
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.claims import appendix, section_5_1
from analysis.exhibits.claims.claim import Claim, Outcome, judge, registered
from analysis.exhibits.claims.claim import claim as registers
from analysis.exhibits.claims.table import claims, summary

ROOT = Path(__file__).resolve().parents[3]
ALL = claims()


def results(folder: Path) -> Results:
    return Results(load([folder]))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Keyed by what the claims are to come out as."""
    folder = tmp_path_factory.mktemp("worlds")
    other = synthetic.cell("lenet-300-100", "dense", 0, dataset="digits", protocol="")
    return {
        "supported": results(synthetic_claims.write(folder / "holds", holds=True)),
        "not supported": results(synthetic_claims.write(folder / "fails", holds=False)),
        "not run": results(synthetic.write(folder / "nothing", [other])),
    }


@pytest.mark.parametrize("claim", ALL, ids=lambda claim: claim.id)
@pytest.mark.parametrize("expected", ["supported", "not supported", "not run"])
def test_a_claim_comes_out_as_the_tables_say(worlds: dict[str, Results], claim: Claim, expected: str) -> None:
    outcome = claim.test(worlds[expected])
    refutable = claim.id != "thresholds-in-1"  # extremes alone refute no "almost all"
    assert outcome.result == ("mixed" if expected == "not supported" and not refutable else expected), outcome
    known = set(worlds[expected].tables.results["run_id"])
    assert set(outcome.run_ids) <= known
    assert bool(outcome.run_ids) == (expected != "not run")
    assert expected == "not run" or any(letter.isdigit() for letter in outcome.numbers)


def test_claims_are_complete_and_each_once() -> None:
    assert len({claim.id for claim in ALL}) == len(ALL)
    assert all(all(vars(claim).values()) for claim in ALL)
    sections = {claim.section.split(" ")[0] for claim in ALL}
    assert sections == {"4.1", "4.2", "5.1", "5.2", "5.3", "A.1", "A.2", "A.3"}
    assert [claim.section for claim in ALL if claim.section == "5.1"] == [claim.section for claim in ALL][:6]


def test_an_id_is_registered_once() -> None:
    with pytest.raises(ValueError, match="there are two claims 'steps-recover'"):
        registers("steps-recover", section="5.1", claim="c", paper="p", tested_by="t")(
            lambda results: Outcome("not run")
        )
    assert registered() == ALL


def test_mixed_is_where_some_seeds_agree_and_some_do_not() -> None:
    assert [judge(held, "", []).result for held in ([True, False], [True], [False], [])] == [
        "mixed", "supported", "not supported", "not run",
    ]  # fmt: skip


def test_the_papers_words_are_in_the_summary_by_result() -> None:
    outcomes = [Outcome("not run"), Outcome("supported"), Outcome("supported")]
    assert summary(outcomes) == "Of 3 claims: 2 supported, 1 not run."


def test_lost_and_departing_seeds_are_in_no_test(tmp_path: Path) -> None:
    rows = [synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4) | {"weight_max": 0.5 + seed} for seed in range(3)]
    rows[1] |= {"status": "diverged"}
    rows[2] |= {"departs": "drift: torch 2.11"}
    outcome = appendix.weights_within_one(results(synthetic.write(tmp_path, rows)))
    assert (outcome.result, outcome.run_ids) == ("supported", (rows[0]["run_id"],))


def test_missing_seeds_are_said(tmp_path: Path) -> None:
    folder = synthetic_claims.write(tmp_path, holds=True)
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    name = synthetic.cell("lenet-300-100", "dst", 1, alpha=5e-4)["run_id"]
    pending = [line.replace(",done,", ",pending,") if line.startswith(f"{name},") else line for line in lines]
    (folder / "results.csv").write_text("".join(pending))
    outcome = section_5_1.third_layer_stays(results(folder))
    assert outcome.numbers.endswith("(n=1/2)")


def test_what_the_committed_runs_say_of_the_first_layer_is_recomputed() -> None:
    folder = ROOT / "paper_figures/results/mnist-lenet-300-100"
    with (folder / "results.csv").open() as file:
        chosen = {row["run_id"]: row["seed"] for row in csv.DictReader(file) if row["alpha"] == "0.0005"}
    first: dict[str, int] = {}
    with (folder / "traces.csv").open() as file:
        for row in csv.DictReader(file):
            of_interest = row["run_id"] in chosen and row["name"] == "density/fc1.weight" and not row["step"]
            if of_interest and float(row["value"]) < 0.1:
                first.setdefault(chosen[row["run_id"]], int(row["epoch"]))
    outcome = section_5_1.first_layer_falls(results(folder))
    assert outcome.result == "mixed"
    assert f"below 0.1 from epoch {', '.join(str(first[seed]) for seed in sorted(first))} " in outcome.numbers


def test_the_exhibit_names_the_runs_of_every_claim(tmp_path: Path, worlds: dict[str, Results]) -> None:
    (written,) = build(worlds["supported"].tables, tmp_path, only=["claims"])
    assert {file.suffix for file in written.files} == {".md", ".tex", ".csv"}
    with (tmp_path / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["claim"] for row in rows] == [claim.claim for claim in ALL]
    assert all(len(row["run_ids"].split(";")) == int(row["runs"]) for row in rows)
    assert written.finding == f"Of {len(ALL)} claims: {len(ALL)} supported."
    text = (tmp_path / "claims.tex").read_text()
    body = text.split("\\endhead")[1].split("\\bottomrule")[0]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith("\\\\")} == {6}
