"""The README's numbers are those of the committed tables, and its examples run."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import methods
from analysis.statistics.small_samples import mean_interval
from benchmark.plugins import load_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "paper_figures/results/mnist-lenet-300-100/results.csv"
README = (ROOT / "README.md").read_text()


def measured(results: Path = RESULTS) -> dict[tuple[str, str], list[dict[str, str]]]:
    groups = defaultdict(list)
    with results.open() as file:
        for row in csv.DictReader(file):
            groups[row["method"], row["alpha"]].append(row)
    return groups


@pytest.mark.parametrize("key", list(measured()))
def test_the_results_table_is_the_committed_one(key: tuple[str, str]) -> None:
    rows = measured()[key]
    (line,) = (line for line in README.splitlines() if line.startswith(f"| {key[0]} | {key[1]} |"))
    accuracy = mean_interval([float(row["test_accuracy"]) for row in rows])
    density = mean_interval([100 * float(row["density"]) for row in rows])
    cells = [cell.strip() for cell in line.split("|")[3:6]]
    remaining = "100" if key[0] == "dense" else "{:.2f} ± {:.2f}".format(*density)
    assert cells == [str(len(rows)), "{:.2f} ± {:.2f}".format(*accuracy), remaining]
    assert {row["status"] for row in rows} == {"done"}


def test_what_is_said_of_lenet_5_caffe_is_what_its_rows_say() -> None:
    rows = measured(ROOT / "paper_figures/results/mnist-lenet-5-caffe/results.csv")
    said = [(rows["dense", ""], "test_accuracy", 1)]
    for alpha in ("0.0005", "0.001"):
        said += [(rows["dst", alpha], "test_accuracy_at_min_density", 1), (rows["dst", alpha], "min_density", 100)]
    for found, name, scale in said:
        values = [scale * float(row[name]) for row in found]
        assert len(values) == 5
        for page in (README, (ROOT / "docs/protocols.md").read_text()) if "min" in name else (README,):
            assert f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} %" in " ".join(page.split()), name
    ends = [100 * float(row["density"]) for (method, _), found in rows.items() if method == "dst" for row in found]
    assert f"anything from {min(ends):.0f} to {max(ends):.0f} %" in " ".join(README.split())


def test_the_baselines_named_are_the_committed_means() -> None:
    accuracies = defaultdict(list)
    for folder in ("mnist-baselines", "mnist-baselines-dsr"):
        with (ROOT / "paper_figures/results" / folder / "results.csv").open() as file:
            for row in csv.DictReader(file):
                fraction = json.loads(row["spec"])["method"].get("prune_fraction")
                if row["density_target"] == "0.05":
                    accuracies[row["method"], fraction].append(float(row["test_accuracy"]))
    for method, fraction in (("static", None), ("set", None), ("dsr", 0.05), ("sparse_momentum", None)):
        mean, _ = mean_interval(accuracies[method, fraction])
        assert re.search(rf"`{method}`\s+{mean:.2f}", README), (method, mean)


def test_no_placeholder_is_left() -> None:
    assert re.findall(r"^[A-Z_]{6,}$", README, re.MULTILINE) == []


def test_the_named_commit_is_the_one_that_was_run() -> None:
    commits = {row["commit"] for rows in measured().values() for row in rows}
    (named,) = re.findall(r"commit `(\w+)`", README)
    assert [commit.startswith(named) for commit in commits] == [True]


def test_the_example_method_keeps_its_promises() -> None:
    module = load_file(ROOT / "docs/examples/magnitude.py")
    methods.conformance.check_method(module.OneShot)


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_training_loop_of_ones_own_prunes_and_finalizes() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 4))
    attached = methods.attach(model, "dst", total_steps=60, steps_per_epoch=60, alpha=0.05)
    optimizer = torch.optim.SGD(attached.parameter_groups(weight_decay=1e-4), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    for _ in range(60):
        x, y = torch.randn(16, 20), torch.randint(4, (16,))
        optimizer.zero_grad()
        (torch.nn.functional.cross_entropy(model(x), y) + attached.penalty()).backward()
        attached.step()
    density = attached.density()
    assert 0 < density < 1
    assert type(methods.finalize(model)[0]) is torch.nn.Linear
    kept = sum(int(model[i].weight.count_nonzero()) for i in (0, 2))
    assert kept == round(density * 720)
