"""Every claim of the paper on tables where it holds, where it does not, and where nothing was run."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import synthetic_claims

from analysis.build import build
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.claims import appendix, appendix_ranges, section_4, section_5_1
from analysis.exhibits.claims.claim import Claim, Outcome, judge, registered
from analysis.exhibits.claims.claim import claim as registers
from analysis.exhibits.claims.evidence import almost_all, below, better, some, varies_more, within
from analysis.exhibits.claims.table import claims, summary
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison

ROOT = Path(__file__).resolve().parents[3]
ALL = claims()


def results(folder: Path) -> Results:
    return Results(load([folder]))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Keyed by what the claims are to come out as; that of "supported" has the numbers that the paper prints."""
    folder = tmp_path_factory.mktemp("worlds")
    other = synthetic.cell("lenet-300-100", "dense", 0, dataset="digits", protocol="")
    return {
        "supported": results(synthetic_claims.write(folder / "holds", holds=True)),
        "not supported": results(synthetic_claims.write(folder / "fails", holds=False)),
        "loses": results(synthetic_claims.write(folder / "loses", holds=False, loses=True, datasets=("cifar10",))),
        "one seed": results(synthetic_claims.write(folder / "one", holds=True, seeds=(0,))),
        "mixed": results(_mixed(folder / "mixed", folder / "holds", folder / "fails")),
        "not run": results(synthetic.write(folder / "nothing", [other])),
    }


def _mixed(out: Path, holds: Path, fails: Path) -> Path:
    """The paper's world, but for seed 0, which is of the other world."""
    out.mkdir()
    for name in ("results", "traces", "layers"):
        lines: list[dict[str, str]] = []
        for folder, mine in ((holds, False), (fails, True)):
            with (folder / "results.csv").open() as file:
                seeds = {row["run_id"]: row["seed"] for row in csv.DictReader(file)}
            with (folder / f"{name}.csv").open() as file:
                lines += [row for row in csv.DictReader(file) if (seeds[row["run_id"]] == "0") == mine]
        synthetic.save(out / f"{name}.csv", list(lines[0]), lines)
    return out


ARITHMETIC = {"vector-overhead", "matrix-overhead"}
# decided by t tests over seeds, which one seed does not allow
BY_SEEDS = {
    "lenet-as-dense", "lenets-98-pruned", "lstm-99-pruned", "table2-outperforms", "table3-outperforms", "drop-below-5",
    "moderate-alpha", "final-remaining", "final-above-dense", "matrix-like-vector", "density-falls",
    "density-falls-mnist",
}  # fmt: skip
# each seed shows the claim or contradicts it
EACH_SEED = {
    "steps-recover", "first-steps-fluctuate", "layer3-stays-1", "layer1-below-10", "layers-1-2-decrease",
    "fc2-low-until-80", "fc2-then-1", "earlier-unchanged", "accuracy-85-92", "fc2-at-40", "accuracy-90-92",
    "sparse-above-dense-slow", "sparse-above-dense", "weights-in-1", "thresholds-in-1", "q-in-1", "wrn-like-vgg",
}  # fmt: skip
# each network, alpha or step of alpha does, by its mean
EACH_CONDITION = {
    "sparse-layers", "kept-layers", "pattern-consistent",
    "pattern-consistent-wrn", "reset-widens", "scalar-less-robust",
}  # fmt: skip


@pytest.mark.parametrize("claim", [c for c in ALL if c.id not in ARITHMETIC], ids=lambda claim: claim.id)
@pytest.mark.parametrize("expected", ["supported", "not supported", "not run"])
def test_a_claim_comes_out_as_the_tables_say(worlds: dict[str, Results], claim: Claim, expected: str) -> None:
    """Each claim holds on the paper's own numbers: they are the rows of "supported"."""
    other = claim.id == "moderate-alpha" and expected == "not supported"
    outcome = claim.test(worlds["loses" if other else expected])
    assert outcome.result == expected, outcome
    known = set(worlds["loses" if other else expected].tables.results["run_id"])
    assert set(outcome.run_ids) <= known
    assert bool(outcome.run_ids) == (expected != "not run")
    assert expected == "not run" or any(letter.isdigit() for letter in outcome.numbers)


@pytest.mark.parametrize("claim", [claim for claim in ALL if claim.id in BY_SEEDS], ids=lambda claim: claim.id)
def test_one_seed_shows_and_contradicts_nothing_that_needs_several(worlds: dict[str, Results], claim: Claim) -> None:
    assert claim.test(worlds["one seed"]).result == "inconclusive"


@pytest.mark.parametrize("claim", [claim for claim in ALL if claim.id in EACH_SEED], ids=lambda claim: claim.id)
def test_a_claim_that_one_seed_contradicts_is_mixed(worlds: dict[str, Results], claim: Claim) -> None:
    assert claim.test(worlds["mixed"]).result == "mixed"


def test_a_claim_about_every_alpha_rate_or_setting_is_open_where_one_was_not_run(worlds: dict[str, Results]) -> None:
    """Only alpha 5e-6 at learning rate 0.1 was run, and one rival at one density."""
    world = worlds["supported"].tables
    rates = pd.Series([json.loads(spec)["optimizer"]["lr"] for spec in world.results["spec"]])
    alphas = world.results["alpha"].isna() | (world.results["alpha"] == 5e-6)
    few = Results(dataclasses.replace(world, results=world.results[alphas & (rates == 0.1)]))
    found = {claim.id: claim.test(few) for claim in ALL}
    for name in ("sparse-layers", "kept-layers", "final-remaining", "final-above-dense"):
        assert found[name].result == "inconclusive", name
        assert re.search(r"(alpha 1e-05|learning rate 0\.01): not run", found[name].numbers), found[name].numbers
    target = next(target for target in printed.targets("table2") if target.origin == "quoted")
    same = (world.results["model"] == target.model) & (world.results["method"] == target.method)
    own = same & np.isclose(world.results["density_target"], (target.density_percent or 0) / 100)
    rivals = world.results[own | world.results["method"].isin(["dense", "dst"])]
    (claim,) = (claim for claim in ALL if claim.id == "table2-outperforms")
    outcome = claim.test(Results(dataclasses.replace(world, results=rivals)))
    assert (outcome.result, outcome.numbers.count(", shown")) == ("inconclusive", 1), outcome.numbers


def test_earlier_layers_decide_nothing_where_the_output_layer_has_not_risen(worlds: dict[str, Results]) -> None:
    (claim,) = (claim for claim in ALL if claim.id == "earlier-unchanged")
    world = worlds["supported"].tables
    output = world.traces["name"] == "density/fc2.weight"
    low = dataclasses.replace(world, traces=world.traces.assign(value=world.traces["value"].mask(output, 0.18)))
    outcome = claim.test(Results(low))
    assert outcome.result == "inconclusive"
    assert "FC 2 at epoch 90: 0.18, 0.18" in outcome.numbers


def test_a_claim_counts_the_seeds_that_have_records(worlds: dict[str, Results]) -> None:
    """Of five finished seeds, one has neither traces nor layers."""
    world = worlds["supported"].tables
    gone = set(world.results.loc[world.results["seed"] == 4, "run_id"])
    left = [table[~table["run_id"].isin(gone)] for table in (world.traces, world.layers)]
    partly = Results(dataclasses.replace(world, traces=left[0], layers=left[1]))
    for name in ("fc2-then-1", "sparse-layers"):
        (claim,) = (claim for claim in ALL if claim.id == name)
        outcome = claim.test(partly)
        assert "(n=4/5)" in outcome.numbers
        assert not gone & set(outcome.run_ids)


def test_cells_that_are_still_to_run_do_not_count_as_lost(worlds: dict[str, Results]) -> None:
    """Neither do runs whose layers are not recorded count as trained."""
    (claim,) = (claim for claim in ALL if claim.id == "reset-widens")
    world = worlds["supported"].tables
    off = world.results["spec"].str.contains('"reset_density":null')
    pending = world.results.assign(status=world.results["status"].mask(off, "pending"))
    assert claim.test(worlds["supported"]).result == "supported"
    assert claim.test(Results(dataclasses.replace(world, results=pending))).result == "not run"
    bare = dataclasses.replace(world, layers=world.layers.iloc[:0])
    outcome = claim.test(Results(bare))
    assert (outcome.result, outcome.numbers) == ("not run", "no layers of its runs are recorded")


def test_an_alpha_with_one_seed_leaves_the_answer_to_those_with_more(tmp_path: Path) -> None:
    kept = {5e-4: 0.02, 1e-3: 0.015, 2e-3: 0.01}
    rows = [synthetic.cell("lstm-a", "dense", seed, accuracy=98.6 + seed / 100) for seed in range(3)]
    for alpha, share in kept.items():
        cells = [synthetic.cell("lstm-a", "dst", seed, alpha=alpha, kept=share) for seed in range(3)]
        rows += [row | {"test_accuracy": 98.1 + row["seed"] / 200} for row in cells]
    extra = synthetic.cell("lstm-a", "dst", 0, alpha=7e-4, kept=0.017, accuracy=98.5)
    for name, given in (("without", rows), ("with", [*rows, extra])):
        world = results(synthetic.write(tmp_path / name, given))
        assert section_4.lstms_beat_dense(world).result == "not supported", name
        falls = section_4.density_falls_on_mnist(world)
        assert (falls.result, len(falls.run_ids)) == ("supported", 9), name


def test_numbers_against_dense_count_the_seeds_that_both_have(worlds: dict[str, Results]) -> None:
    world = worlds["supported"].tables
    for dense_seeds, said in ((3, "(n=3/5)"), (1, "(n=1/5)")):
        kept = (world.results["method"] != "dense") | (world.results["seed"] < dense_seeds)
        given = Results(dataclasses.replace(world, results=world.results[kept]))
        found = {claim.id: claim.test(given).numbers for claim in ALL}
        for name in ("lenet-as-dense", "sparse-above-dense-slow", "final-above-dense", "lenets-98-pruned"):
            assert said in found[name], (name, found[name])
            assert "nan" not in found[name], (name, found[name])


def test_a_density_does_not_show_what_the_accuracy_cannot_test(worlds: dict[str, Results]) -> None:
    """With one dense seed there is no test against dense, whatever the densities show."""
    world = worlds["supported"].tables
    kept = (world.results["method"] != "dense") | (world.results["seed"] == 0)
    outcome = section_4.lenets_prune_98(Results(dataclasses.replace(world, results=world.results[kept])))
    assert outcome.result == "inconclusive"


def test_the_spread_over_seeds_is_compared_by_an_f_test(tmp_path: Path) -> None:
    kept = {1e-4: (0.05, 0.051, 0.049), 2e-4: (0.02, 0.05, 0.125), 3e-4: (0.05, 0.052, 0.047), 4e-4: (0.05,) * 3}
    rows = [
        synthetic.cell("lenet-300-100", "dst", seed, alpha=alpha, kept=share)
        for alpha, shares in kept.items()
        for seed, share in enumerate(shares)
    ]
    narrow, wide, alike, still = results(synthetic.write(tmp_path, rows)).conditions
    assert [varies_more(*pair) for pair in ((wide, narrow), (narrow, wide), (alike, narrow), (wide, still))] == [
        True, False, None, True,
    ]  # fmt: skip


def test_claims_are_complete_and_each_once() -> None:
    assert len({claim.id for claim in ALL}) == len(ALL)
    assert {claim.id for claim in ALL} == ARITHMETIC | BY_SEEDS | EACH_SEED | EACH_CONDITION
    assert all(all(vars(claim).values()) for claim in ALL)
    sections = {claim.section.split(" ")[0] for claim in ALL}
    assert sections == {"4.1", "4.2", "5.1", "5.2", "5.3", "A.1", "A.2", "A.3", "A.4", "A.5"}
    assert [claim.section for claim in ALL if claim.section == "5.1"] == [claim.section for claim in ALL][:6]


def test_overheads_are_arithmetic_on_every_network_of_the_paper(
    worlds: dict[str, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    overheads = [claim for claim in ALL if claim.id in ARITHMETIC]
    models = {target.model for name in ("table1", "table2", "table3") for target in printed.targets(name)}
    for claim in overheads:
        outcome = claim.test(worlds["not run"])
        assert outcome.result == "supported"
        assert all(model in outcome.numbers for model in {*models, "wrn-28-8", "wrn-16-10"})
    wide = printed.LayerSizes(layers=1, rows=20, weights=500, parameters=1000)
    monkeypatch.setattr(printed, "layer_sizes", lambda: {"a": wide})
    assert {claim.test(worlds["not run"]).result for claim in overheads} == {"not supported"}
    thin = printed.LayerSizes(layers=1, rows=1, weights=990, parameters=1000)
    monkeypatch.setattr(printed, "layer_sizes", lambda: {"a": wide, "b": thin})
    assert {claim.test(worlds["not run"]).result for claim in overheads} == {"mixed"}


def test_the_lenets_are_read_at_three_readings_and_no_alpha_is_said_to_leave_too_much_that_does_not() -> None:
    """On the committed runs: LeNet-5-Caffe at 1e-3 leaves 1.49 % at its sparsest epoch, not at the last."""
    outcome = section_4.lenets_prune_98(results(ROOT / "paper_figures/results"))
    parts = dict(part.split(": ", 1) for part in re.split(r"; (?=lenet)", outcome.numbers))
    assert parts["lenet-5-caffe, lowest density"].startswith("alpha 0.001 -0.20 at 1.49 ± 0.12 % (n=10)")
    assert parts["lenet-5-caffe, last"].startswith("no alpha that was run leaves so little in the geometric mean")
    assert "alpha 0.002 leaves 1.95 [1.32, 3.96] % (n=3)" in parts["lenet-5-caffe, last"]
    assert len(parts) == 6


def test_weights_are_judged_only_where_there_is_l2_and_the_others_are_named(worlds: dict[str, Results]) -> None:
    outcome = appendix_ranges.weights_within_one(worlds["supported"])
    assert "lenet-300-100, without l2: largest" in outcome.numbers
    mnist = appendix_ranges.weights_within_one(results(ROOT / "paper_figures/results"))
    assert mnist.result == "not run"
    assert re.search(r"lenet-300-100, without l2: largest 1\.03 to \d\.\d\d in \d\d+ cells", mnist.numbers)
    (claim,) = (claim for claim in ALL if claim.id == "weights-in-1")
    assert "On MNIST A.1 names none" in claim.tested_by


def test_old_rows_show_of_thresholds_and_q_only_what_follows_from_the_extremes(tmp_path: Path) -> None:
    decay = {"optimizer": {"weight_decay": 1e-4}}
    found = {}
    for name, ranges in (("in", (0.0, 0.4, 0.9)), ("out", (-0.1, 0.4, 0.95)), ("far", (0.0, 0.4, 1.5))):
        row = synthetic.cell("vgg16", "dst", 0, dataset="cifar10", alpha=5e-6, sections=decay)
        row |= dict(zip(("threshold_min", "threshold_max", "weight_max"), ranges, strict=True))
        world = results(synthetic.write(tmp_path / name, [row]))
        found[name] = [appendix_ranges.thresholds_within_one(world).result, appendix_ranges.q_within_one(world).result]
    assert found == {
        "in": ["supported", "supported"],
        "out": ["inconclusive", "inconclusive"],
        "far": ["supported", "not supported"],
    }


def test_an_id_is_registered_once() -> None:
    with pytest.raises(ValueError, match="there are two claims 'steps-recover'"):
        registers("steps-recover", section="5.1", claim="c", paper="p", tested_by="t")(
            lambda results: Outcome("not run")
        )
    assert registered() == ALL


def test_a_result_says_whether_units_show_the_claim_contradict_it_or_do_neither() -> None:
    units: list[list[bool | None]] = [[True, False], [True], [False], [True, None], [False, None], [None], []]
    assert [judge(held, "", []).result for held in units] == [
        "mixed", "supported", "not supported", "inconclusive", "inconclusive", "inconclusive", "not run",
    ]  # fmt: skip


def test_answers_are_those_of_t_tests() -> None:
    sharp, blunt = Comparison(0.1, 0.01, 4), Comparison(0.1, 0.2, 4)
    assert [within(c, 0.2) for c in (sharp, blunt, Comparison(0.5, 0.01, 4))] == [True, None, False]
    assert [below(c, 0.2) for c in (sharp, blunt, Comparison(0.5, 0.01, 4))] == [True, None, False]
    assert [better(c, 0.2) for c in (sharp, blunt, Comparison(-0.05, 0.01, 4), Comparison(-0.05, 0.04, 4))] == [
        True, None, False, None,
    ]  # fmt: skip
    assert [within(Comparison(0.0, float("nan"), float("nan")), 0.2), some([(0.04, 1.0, True)])] == [None, True]
    assert some([(0.04, 1.0, True), (1.0, 0.01, True)]) is None, "the smallest of two p is doubled"
    assert [some([(1.0, 0.01, True), (1.0, 0.9, False)]), some([(1.0, 0.01, False)])] == [False, None]
    assert almost_all([True, False]) is None, "one of two is not almost all"
    assert almost_all([True, True, False]) is True
    assert [almost_all(a) for a in ([True, True, None], [True, None, None], [True, False, False], [False])] == [
        True, None, False, False,
    ]  # fmt: skip


def test_the_papers_words_are_in_the_summary_by_result() -> None:
    outcomes = [Outcome("not run"), Outcome("supported"), Outcome("supported")]
    assert summary(outcomes) == "Of 3 claims: 2 supported, 1 not run."


def test_lost_and_departing_seeds_are_in_no_test(tmp_path: Path) -> None:
    decay = {"optimizer": {"weight_decay": 1e-4}}
    rows = [
        synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4, sections=decay) | {"weight_max": 0.5 + seed}
        for seed in range(3)
    ]
    rows[1] |= {"status": "diverged"}
    rows[2] |= {"departs": "drift: torch 2.11"}
    outcome = appendix_ranges.weights_within_one(results(synthetic.write(tmp_path, rows)))
    assert (outcome.result, outcome.run_ids) == ("supported", (rows[0]["run_id"],))


def test_pairs_are_counted_and_not_the_seeds_of_one_side(tmp_path: Path) -> None:
    """Matrix thresholds have five seeds and vector ones three: three pairs are tested."""
    shapes = {"vector": range(3), "matrix": range(5)}
    rows = [
        synthetic.cell("lenet-300-100", "dst", seed, alpha=5e-4, kept=0.08 + seed / 1000, threshold=shape)
        for shape, seeds in shapes.items()
        for seed in seeds
    ]
    outcome = appendix.matrix_is_like_vector(results(synthetic.write(tmp_path, rows)))
    assert "(n=3/5)" in outcome.numbers


def test_a_network_whose_last_convolution_falls_is_not_one_whose_convolutions_fall(tmp_path: Path) -> None:
    folder = synthetic_claims.write(tmp_path, holds=True)
    (found,) = (claim for claim in ALL if claim.id == "wrn-like-vgg")
    assert found.test(results(folder)).result == "supported"
    table = pd.read_csv(folder / "traces.csv", dtype=str, keep_default_na=False)
    model = pd.read_csv(folder / "results.csv", dtype=str).set_index("run_id")["model"]
    wide = table["run_id"].map(model).str.startswith("wrn") & table["name"].str.startswith("density/")
    names = [name for name in table.loc[wide, "name"].unique() if "conv" in name]
    first = wide & (table["name"] == names[0]) & (table["epoch"] == "1")
    table.loc[first, "value"] = "0.0001"  # this one rises; the mean over five still falls
    table.to_csv(folder / "traces.csv", index=False)
    assert found.test(results(folder)).result != "supported"


def test_missing_seeds_are_said(tmp_path: Path) -> None:
    folder = synthetic_claims.write(tmp_path, holds=True)
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    rows = [row for row in synthetic_claims.mnist(True) if row["model"] == "lenet-300-100" and row["alpha"] == 5e-4]
    name = rows[1]["run_id"]
    pending = [line.replace(",done,", ",pending,") if line.startswith(f"{name},") else line for line in lines]
    (folder / "results.csv").write_text("".join(pending))
    outcome = section_5_1.third_layer_stays(results(folder))
    assert outcome.numbers.endswith("(n=4/5)")


@pytest.mark.parametrize(
    ("lost", "tests"),
    [
        ("density/fc2.weight", ("third_layer_stays", "first_layer_falls", "first_layers_keep_falling")),
        ("masked/fc2.weight", ("steps_prune_and_recover", "first_steps_fluctuate")),
        ("test_accuracy", ("lenet_follows_dense",)),
    ],
)
def test_a_seed_without_some_records_is_in_no_test_of_them(tmp_path: Path, lost: str, tests: tuple[str, ...]) -> None:
    """It counts neither in the result nor among its runs, and does not end the build."""
    folder = synthetic_claims.write(tmp_path, holds=True)
    rows = [row for row in synthetic_claims.mnist(True) if row["model"] == "lenet-300-100" and row["alpha"] == 5e-4]
    name = rows[1]["run_id"]
    lines = (folder / "traces.csv").read_text().splitlines(keepends=True)
    (folder / "traces.csv").write_text("".join(n for n in lines if not (n.startswith(f"{name},") and lost in n)))
    found = results(folder)
    for test in tests:
        outcome = getattr(section_5_1, test)(found)
        assert (outcome.result, outcome.numbers[-7:]) == ("supported", "(n=4/5)"), test
        assert name not in outcome.run_ids, test


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
    assert outcome.result == "not supported", "every seed contradicts it: the layer is the sparsest, and falls late"
    assert f"below 0.1 from epoch {', '.join(str(first[seed]) for seed in sorted(first))} " in outcome.numbers


def test_the_exhibit_names_the_runs_of_every_claim(tmp_path: Path, worlds: dict[str, Results]) -> None:
    (written,) = build(worlds["supported"].tables, tmp_path, only=["claims"])
    assert {file.suffix for file in written.files} == {".md", ".tex", ".csv"}
    with (tmp_path / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["claim"] for row in rows] == [claim.claim for claim in ALL]
    assert all(len(row["run_ids"].split(";")) == int(row["runs"]) for row in rows if row["runs"] != "-")
    assert {row["runs"] for row in rows if row["how_it_is_tested_here"].startswith("arithmetic")} == {"-"}
    assert written.finding == f"Of {len(ALL)} claims: {len(ALL)} supported."
    text = (tmp_path / "claims.tex").read_text()
    body = text.split("\\endhead")[1].split("\\bottomrule")[0]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith("\\\\")} == {6}
