"""Tables 1, 2, 3 and A.2, recomputed from the rows in plain Python: no code of analysis but the build itself."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
import synthetic_tables
from scipy.stats import t as student

from analysis.build import build
from analysis.data.read import load

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("table1", "table2", "table3", "tableA2", "table1-verdicts", "table2-verdicts", "table3-verdicts", "verdicts")
COLUMNS = {
    "best": ("best_test_accuracy", "density_at_best_test_accuracy"),
    "last": ("test_accuracy", "density"),
    "lowest": ("test_accuracy_at_min_density", "min_density"),
}
MARGINS = {"table1": 0.2, "table2": 0.3, "table3": 0.5}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tables")
    build(load([synthetic_tables.write(base / "in")]), base / "out", only=NAMES)
    return base


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, dict[str, str]]:
    return {row["run_id"]: row for row in read(folder / "in/results.csv")}


@pytest.fixture(scope="module")
def targets() -> dict[str, list[dict[str, str]]]:
    found = defaultdict(list)
    for row in read(ROOT / "analysis/paper/targets.csv"):
        found[row["exhibit"]].append(row)
    return found


def shape(row: dict[str, str]) -> str:
    """Of a DST row's thresholds; empty for other methods."""
    return str(json.loads(row["spec"])["method"].get("threshold", ""))


def interval(values: list[float], confidence: float) -> tuple[float, float]:
    half = student.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def check(line: dict[str, str], name: str, values: list[float], printed: float | None) -> None:
    """mean, sd, n, 95 % interval; and minus the printed number, with its interval."""
    assert int(line[f"{name}_n"]) == len(values)
    assert float(line[f"{name}_mean"]) == pytest.approx(statistics.fmean(values))
    assert float(line[f"{name}_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-12)
    limits = [float(line[f"{name}_{end}"]) for end in ("low", "high")]
    assert limits == pytest.approx(interval(values, 0.95))
    if printed is not None:
        against = [float(line[f"{name}_against_paper{end}"]) for end in ("", "_low", "_high")]
        assert against == pytest.approx([statistics.fmean(values) - printed, *(v - printed for v in limits)], abs=1e-9)


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_every_measured_line_is_what_its_rows_say(
    name: str, folder: Path, rows: dict[str, dict[str, str]], targets: dict[str, list[dict[str, str]]]
) -> None:
    measured = 0
    printed: dict[str, str] = {}
    for line in read(folder / f"out/{name}.csv"):
        if line["source"] == "paper":
            printed = line
            continue
        own, dense = ([rows[i] for i in line[c].split(";")] for c in ("run_ids", "dense_run_ids"))
        target = next(
            row for row in targets[name]
            if (row["model"], row["method"]) == (line["architecture"], line["method"])
            and float(row["density_percent"]) == float(printed["printed_remaining_mean"])
        )  # fmt: skip
        for epoch, (accuracy, density) in COLUMNS.items():
            if epoch == "lowest" and line["method"] != "dst":
                continue
            dense_column = "test_accuracy" if epoch == "lowest" else accuracy
            twins = {row["seed"]: float(row[dense_column]) for row in dense}
            sparse = {row["seed"]: float(row[accuracy]) for row in own}
            check(line, f"{epoch}_sparse", list(sparse.values()), float(target["sparse"]))
            check(line, f"{epoch}_dense", list(twins.values()), float(target["dense"]))
            pairs = [sparse[seed] - twins[seed] for seed in sparse if seed in twins]
            check(line, f"{epoch}_difference", pairs, float(target["sparse"]) - float(target["dense"]))
            percent = [100 * float(row[density]) for row in own]
            check(line, f"{epoch}_remaining", percent, None)
            logs = [math.log(value / float(target["density_percent"])) for value in percent]
            assert float(line[f"{epoch}_remaining_against_paper"]) == pytest.approx(statistics.fmean(logs), abs=1e-12)
        measured += 1
    assert measured >= len(targets[name]) / 2


def test_table3_has_top5_at_the_best_epoch_and_the_remaining_parameters(
    folder: Path, rows: dict[str, dict[str, str]]
) -> None:
    lines = [line for line in read(folder / "out/table3.csv") if line["source"] == "ours"]
    assert len(lines) == 4 + 2 * 2, "four baselines, and two alphas beside each of two printed lines"
    for line in lines:
        own = [rows[i] for i in line["run_ids"].split(";")]
        last = [float(row["test_top5_accuracy"]) for row in own]
        check(line, "last_sparse_top5", last, None)
        check(line, "best_sparse_top5", [value + 0.5 for value in last], None)  # as the synthetic traces have it
        check(line, "last_parameters", [1e-6 * float(row["parameters_remaining"]) for row in own], None)


def test_means_are_of_only_done_rows_of_the_condition(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    for name in ("table1", "table2", "table3"):
        lines = [line for line in read(folder / f"out/{name}.csv") if line["run_ids"]]
        assert lines
        for line in lines:
            used = [rows[i] for i in line["run_ids"].split(";")]
            assert {(row["status"], row["departs"]) for row in used} == {("done", "")}
            assert len({(row["model"], row["method"], row["alpha"], row["density_target"]) for row in used}) == 1
            assert {shape(row) for row in used} <= {"", "vector"}
            same = [
                row["run_id"] for row in rows.values()
                if all(row[k] == used[0][k] for k in ("model", "method", "alpha", "density_target"))
                and (row["status"], row["departs"]) == ("done", "") and shape(row) in ("", "vector")
            ]  # fmt: skip
            assert sorted(same) == sorted(row["run_id"] for row in used)


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_every_alpha_is_judged_at_every_reading_and_the_nearest_is_the_readings_own(
    name: str, folder: Path, rows: dict[str, dict[str, str]]
) -> None:
    lines = [line for line in read(folder / f"out/{name}-verdicts.csv") if line["origin"] == "measured"]
    by_target: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for line in lines:
        if line["run_ids"]:
            by_target[line["cell"], line["metric"]].append(line)
    assert by_target
    for (_, _), own in by_target.items():
        model, wanted = own[0]["model"], float(own[0]["paper_density_percent"])
        done = [r for r in rows.values() if (r["model"], r["method"], r["status"], r["departs"], shape(r))
                == (model, "dst", "done", "", "vector")]  # fmt: skip
        alphas = {float(row["alpha"]) for row in done}
        for epoch, (_, column) in COLUMNS.items():
            at = {_alpha(line, rows): line for line in own if line["epoch"] == epoch}
            assert set(at) == alphas
            means = {a: statistics.fmean(100 * float(r[column]) for r in done if float(r["alpha"]) == a) for a in at}
            nearest = min(means, key=lambda alpha: abs(math.log(means[alpha] / wanted)))
            stated = [alpha for alpha, line in at.items() if line["basis"] == "stated"]
            assert {alpha for alpha, line in at.items() if line["basis"] == "nearest"} == {nearest} - set(stated)
            (deciding,) = (alpha for alpha, line in at.items() if line["decides"] == "True")
            assert deciding == (stated or [nearest])[0]


def _alpha(line: dict[str, str], rows: dict[str, dict[str, str]]) -> float:
    (alpha,) = {float(row["alpha"]) for i in line["run_ids"].split(";") if (row := rows[i])["method"] == "dst"}
    return alpha


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_verdicts_follow_from_the_rows_by_the_rule(
    name: str, folder: Path, targets: dict[str, list[dict[str, str]]], rows: dict[str, dict[str, str]]
) -> None:
    """The rule written again: one-sided t tests, the smallest claim's p, Holm over what counts and over the rest."""
    lines = [line for line in read(folder / f"out/{name}-verdicts.csv") if line["origin"] == "measured"]
    families: dict[str, list[tuple[float, str, dict[str, str]]]] = defaultdict(list)
    for line in lines:
        if "factor" in line["verdict"]:
            continue
        assert line["counts"] == str(line["decides"] == "True" and line["epoch"] == "last")
        families[line["counts"]].append((*claim(line, MARGINS[name], rows), line))
    assert set(families) == {"True", "False"}
    for family in families.values():
        highest = 0.0
        for rank, (p, name_of_claim, line) in enumerate(sorted(family, key=lambda entry: entry[0])):
            highest = max(highest, min(1.0, (len(family) - rank) * p))
            assert line["claim"] == name_of_claim
            assert float(line["p"]) == pytest.approx(p, rel=1e-6, abs=1e-15)
            assert float(line["p_holm"]) == pytest.approx(highest, rel=1e-6, abs=1e-15)
            assert line["verdict"].startswith(name_of_claim if highest <= 0.05 else "inconclusive (n=")


def claim(line: dict[str, str], margin: float, rows: dict[str, dict[str, str]]) -> tuple[float, str]:
    accuracy, density = COLUMNS[line["epoch"]]
    own = [rows[i] for i in line["run_ids"].split(";") if rows[i]["method"] == line["method"]]
    if line["metric"] == "top5":
        shift = 0.5 if line["epoch"] == "best" else 0.0
        values = [float(row["test_top5_accuracy"]) + shift - float(line["paper_accuracy"]) for row in own]
    else:
        values = [float(row[accuracy]) - float(line["paper_accuracy"]) for row in own]
    logs = [math.log(100 * float(row[density]) / float(line["paper_density_percent"])) for row in own]

    def above(sample: list[float], bound: float) -> float:
        error = statistics.stdev(sample) / math.sqrt(len(sample))
        return float(student.sf((statistics.fmean(sample) - bound) / error, len(sample) - 1))

    def below(sample: list[float], bound: float) -> float:
        return above([-value for value in sample], -bound)

    spread = math.log(1.25)
    shown = {
        "reproduced": max(above(values, -margin), below(values, margin), above(logs, -spread), below(logs, spread)),
        "better": max(above(values, margin), below(logs, spread)),
        "not reproduced": 3 * min(
            below(values, -margin), above(logs, spread), max(below(logs, -spread), below(values, margin))
        ),
    }  # fmt: skip
    best = min(shown, key=lambda name: shown[name])
    return min(1.0, shown[best]), best


def test_a2_is_what_its_rows_say(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    lines = read(folder / "out/tableA2.csv")
    assert len(lines) == 3 * 9
    vectors = {line["model"]: line for line in lines if line["threshold"] == "vector"}
    for line in lines:
        own = {rows[i]["seed"]: rows[i] for i in line["run_ids"].split(";")}
        assert {shape(row) for row in own.values()} == {line["threshold"]}
        assert {float(row["alpha"]) for row in own.values()} == {float(line["alpha"])}
        assert float(line["accuracy_mean"]) == pytest.approx(
            statistics.fmean(float(row["test_accuracy"]) for row in own.values())
        )
        remaining = statistics.fmean(100 * float(row["density"]) for row in own.values())
        assert float(line["remaining_mean"]) == pytest.approx(remaining)
        if line["threshold"] == "vector":
            continue
        vector = {rows[i]["seed"]: rows[i] for i in vectors[line["model"]]["run_ids"].split(";")}
        both = sorted(own.keys() & vector.keys())
        pairs = [float(own[s]["test_accuracy"]) - float(vector[s]["test_accuracy"]) for s in both]
        ends = [float(line[f"accuracy_against_vector{end}"]) for end in ("", "_low", "_high")]
        assert ends == pytest.approx([statistics.fmean(pairs), *interval(pairs, 0.95)], abs=1e-9)


def test_architectures_are_those_of_the_models() -> None:
    """Every network of the paper: layers, rows and weights of its maskable weights, and all its parameters."""
    import methods
    from benchmark import models
    from benchmark.spec import Model
    from benchmark.suites.thresholds import COUNTS

    found = {row["model"]: row for row in read(ROOT / "analysis/paper/architectures.csv")}
    assert set(COUNTS) < set(found)
    printed = {row["model"] for row in read(ROOT / "analysis/paper/targets.csv")}
    assert printed | {"wrn-16-10", "wrn-28-8"} == set(found)
    for name, row in found.items():
        shape, classes = {"vgg": ((3, 32, 32), 10), "wrn": ((3, 32, 32), 10), "res": ((3, 224, 224), 1000)}.get(
            name[:3], ((1, 28, 28), 10)
        )
        model = models.create(Model(name=name), in_shape=shape, classes=classes, seed=0)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        uncounted = tuple(getattr(model, "uncounted", ())) or None
        attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, exclude=uncounted)
        thresholds, masks = attached.thresholds(), attached.masks()
        rows, weights = (sum(tensor.numel() for tensor in of.values()) for of in (thresholds, masks))
        assert [int(row[k]) for k in ("layers", "rows", "weights", "parameters")] == [
            len(thresholds), rows, weights, parameters,
        ], name  # fmt: skip
        if name in COUNTS:
            counts = COUNTS[name]
            assert (counts.scalar, counts.vector, counts.matrix) == (len(thresholds), rows, weights)


@pytest.mark.slow
def test_two_builds_are_equal_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    build(load([folder / "in"]), tmp_path, only=NAMES)
    paths = sorted((folder / "out").iterdir())
    assert {path.stem for path in paths} >= set(NAMES)
    for path in paths:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
