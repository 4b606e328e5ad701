"""The suites that compare methods: all of them in one setting, and rivals at their published numbers."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
from grids import Bench

import methods
from benchmark import models, suites
from benchmark.patterns import layer_pattern
from benchmark.spec import Model, SpecError
from benchmark.suites import field, mnist, rivals_cifar10, rivals_mnist

MODELS = ("lenet-300-100", "mlp-300-100-bn")
ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / "paper_figures/results"
FOLDERS = {0.05: ("mnist-match",), 0.025: ("mnist-lenet-300-100", "mnist-lenet-300-100-more")}


def finished(density: float) -> list[dict[str, str]]:
    """The layers of the committed cells of DST at the field's alpha."""
    alpha, found = str(field.DST_ALPHAS[density]), []
    for folder in FOLDERS[density]:
        with (TABLES / folder / "results.csv").open() as file:
            done = {row["run_id"] for row in csv.DictReader(file) if row["status"] == "done" and row["alpha"] == alpha}
        with (TABLES / folder / "layers.csv").open() as file:
            found += [row for row in csv.DictReader(file) if row["run_id"] in done]
    return found


def test_the_field_shares_its_cells_with_the_suite_of_its_setting() -> None:
    known = {spec.run_id for spec in suites.load("mnist").specs}
    own = suites.load("field").specs
    shared = {spec.run_id for spec in own if spec.run_id in known}
    assert shared == {
        spec.run_id
        for spec in own
        if (spec.method["name"] in mnist.BASELINES and spec.density == 0.05 and "pattern" not in spec.method)
        or spec.method["name"] == "dense"
        or spec.method.get("alpha") == field.DST_ALPHAS[0.025]
    }
    assert {(s.data, s.model) for s in own} == {(mnist.MNIST, Model(name=field.MODEL))}
    assert {dataclasses.replace(s.optimizer, epochs=mnist.SGD.epochs) for s in own} == {mnist.SGD}


def test_methods_that_train_longer_are_there_with_their_budget_and_with_that_of_dst() -> None:
    epochs: dict[str, set[float]] = {}
    for spec in suites.load("field").specs:
        given = {key: value for key, value in spec.method.items() if key != "version"}
        method = methods.create(**given | ({} if spec.density is None else {"density": spec.density}))
        steps = sum(phase.steps for phase in method.phases(spec.optimizer.epochs * 1000))
        epochs.setdefault(str(spec.method["name"]), set()).add(steps / 1000)
    own = {name: budgets - {20} for name, budgets in epochs.items() if budgets != {20}}
    assert own == {
        "dns": {40},
        "l1_filters": {25},
        "lottery": {120, 140},
        "obd": {40},
        "prune_finetune": {40},
        "taylor": {30},
    }
    assert all(20 in budgets for budgets in epochs.values())


def test_the_field_has_every_entry_at_each_of_its_densities_and_seeds() -> None:
    listed = Counter((s.method["name"], s.density) for s in suites.load("field").specs)
    for method in ("static", "set", "dsr", "sparse_momentum", "rigl", "snip"):
        pattern = 3 if method in ("static", "set", "rigl") else 0
        assert listed[method, 0.05] == listed[method, 0.025] == 3 + pattern
    assert (listed["dst", None], listed["dense", None]) == (6, 3)


@pytest.mark.parametrize(("density", "cells"), [(0.05, 3), (0.025, 10)])
def test_the_patterns_of_the_field_are_near_to_those_of_the_committed_cells(density: float, cells: int) -> None:
    """Five of the ten cells at 2.5 % were trained again since, with slightly different results."""
    kept, weights = Counter[str](), Counter[str]()
    for layer in finished(density):
        kept[layer["parameter"]] += int(layer["kept"])
        weights[layer["parameter"]] += int(layer["weights"])
    assert weights["fc3.weight"] == cells * 1000
    names = ("fc1.weight", "fc2.weight", "fc3.weight")
    now = [kept[name] / weights[name] for name in names]
    assert field.DST_LAYERS[density] == pytest.approx(now, rel=0.0 if density == 0.05 else 0.02)


def test_a_pattern_is_read_from_a_table_of_layers(tmp_path: Path) -> None:
    layers = tmp_path / "layers.csv"
    rows = ["a,fc1.weight,100,10", "a,fc2.weight,50,20", "b,fc1.weight,100,30", "b,fc2.weight,50,5", "c,other,4,2"]
    layers.write_text("\n".join(["run_id,parameter,weights,kept", *rows, ""]))
    assert layer_pattern(layers, ["a"]) == (0.1, 0.4)
    assert layer_pattern(layers, ["a", "b"]) == (0.2, 0.25)
    for ids, said in ((["d"], "has no layers of run d"), (["a", "c"], "run c has other layers than run a")):
        with pytest.raises(SpecError, match=said):
            layer_pattern(layers, ids)
    with pytest.raises(SpecError, match="does not exist"):
        layer_pattern(tmp_path / "none.csv", ["a"])
    layers.write_text("run_id,parameter\n")
    with pytest.raises(SpecError, match="is no table of layers: it lacks weights, kept"):
        layer_pattern(layers, ["a"])


def test_a_cell_with_a_pattern_has_it_in_its_identity() -> None:
    for spec in suites.load("field").specs:
        assert (spec.method.get("allocation") == "pattern") == ("pattern" in spec.method)


def test_what_two_cores_train_of_the_rivals_is_one_protocol() -> None:
    short = [spec for spec in suites.load("rivals_mnist").specs if spec.protocol == ("rivals-short",)]
    seeds = Counter((spec.model.name, spec.method["name"], spec.density) for spec in short)
    assert {density for _, _, density in seeds} == {None, 0.01, 0.02, 0.05}
    for (model, _, _), count in seeds.items():
        assert count == (1 if model == "lenet-5-caffe" else 3)
    assert {spec.optimizer.epochs for spec in short} == {25}


def test_the_learning_rate_of_the_rivals_falls_at_the_published_steps() -> None:
    """After 25,000 and 50,000 steps on MNIST, 30,000 and 60,000 on CIFAR-10, to the nearest epoch."""
    for suite, decay in ((rivals_mnist, 25_000), (rivals_cifar10, 30_000)):
        data, sgd = (suite.MNIST if suite is rivals_mnist else suite.CIFAR10), suite.SGD
        steps_per_epoch = -(-(data.train_limit or 0) // sgd.batch_size)
        assert sgd.milestones == tuple(round(k * decay / steps_per_epoch) for k in (1, 2))
    quarter = tuple(round(epoch / 4) for epoch in rivals_mnist.SGD.milestones or ())
    assert (rivals_mnist.SHORT.epochs, rivals_mnist.SHORT.milestones) == (25, quarter)


def test_dsr_moves_20_000_weights_of_wrn_28_2_at_every_density() -> None:
    model = models.create(Model(name="wrn-28-2"), in_shape=(3, 32, 32), classes=10, seed=0)
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == rivals_cifar10.WRN_28_2_WEIGHTS
    for spec in suites.load("rivals_cifar10").specs:
        if spec.method["name"] == "dsr":
            kept = round((spec.density or 0) * rivals_cifar10.WRN_28_2_WEIGHTS)
            assert round(spec.method["prune_fraction"] * kept) == 20_000


def test_the_pages_commands_select_one_seed_of_lenet_5_caffe(bench: Bench, tmp_path: Path) -> None:
    """The short protocol, then the published one at its densities, in two commands."""
    page = (ROOT / "docs/protocols.md").read_text()
    commands = re.findall(r"^python -m benchmark (run --suite rivals_mnist .*)", page, re.MULTILINE)
    short, *published = (bench(*line.split(), "--dry-run", "--out", tmp_path, "--json").json for line in commands)
    own = suites.load("rivals_mnist").specs
    assert {cell["run_id"] for cell in short["to_run"]} == {s.run_id for s in own if "rivals-short" in s.protocol}
    assert [cell["run_id"] for plan in published for cell in plan["to_run"]] == [
        spec.run_id
        for models_of, seeds in ((MODELS, rivals_mnist.SEEDS), (("lenet-5-caffe",), (0,)))
        for spec in own
        if "rivals" in spec.protocol and spec.model.name in models_of and spec.seed in seeds
        if spec.density in (None, *rivals_mnist.SHORT_DENSITIES)
    ]
