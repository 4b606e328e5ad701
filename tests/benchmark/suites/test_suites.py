"""The paper's grids: which cells they hold, and that their fields are those of docs/protocols.md."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import Bench

from benchmark import data, models, suites
from benchmark.commands.estimate import Estimate, key, probe
from benchmark.data.cifar10 import NORMALIZATIONS
from benchmark.data.tensors import Examples, Split, standardized
from benchmark.models.vgg import WIDTHS
from benchmark.spec import Data, Model, RunSpec, SpecError, fields, from_dict, replace_fields
from benchmark.suites import cifar10, gap, gap_networks, imagenet, mnist, thresholds

ROOT = Path(__file__).resolve().parents[3]
PAPER = ("cifar10", "estimators", "imagenet", "mnist", "thresholds")
CELLS = {"cifar10": 85, "estimators": 16, "imagenet": 19, "thresholds": 48}  # with seed 0


def cells(name: str) -> tuple[RunSpec, ...]:
    return suites.load(name).specs


def where(name: str, **wanted: Any) -> list[RunSpec]:
    """Cells by model, method, density, or the end of a dotted field's name."""
    names = {"model": "model.name", "method": "method.name", "alpha": "method.alpha", "lr": "optimizer.lr"}
    return [
        spec
        for spec in cells(name)
        if all(fields(spec).get(names.get(key, key)) == value for key, value in wanted.items())
    ]


@pytest.mark.parametrize(("name", "seeds"), [("estimators", 3), ("imagenet", 5), ("thresholds", 3)])
def test_every_seed_has_the_same_cells(name: str, seeds: int) -> None:
    assert Counter(spec.seed for spec in cells(name)) == dict.fromkeys(range(seeds), CELLS[name])


def test_what_a_verdict_can_be_on_has_five_seeds_and_the_rest_three() -> None:
    assert Counter(spec.seed for spec in cells("mnist")) == {0: 80, 1: 80, 2: 80, 3: 40, 4: 40}
    assert Counter(spec.seed for spec in cells("cifar10")) == {0: 85, 1: 85, 2: 85, 3: 24, 4: 24}
    for suite, names in (("mnist", (*mnist.LENETS, *mnist.LSTMS)), ("cifar10", cifar10.TABLE_2)):
        for name in names:
            chosen = [s for s in where(suite, model=name, seed=4) if s.protocol[0] == "paper"]
            assert {str(s.method["name"]) for s in chosen} == {"dense", "dst"}
            first = [s for s in where(suite, model=name, seed=0) if s.protocol[0] == "paper"]
            assert {key_without_seed(s) for s in chosen} <= {key_without_seed(s) for s in first}


def key_without_seed(spec: RunSpec) -> str:
    return replace_fields(spec, {"seed": 0}).run_id


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_condition_is_there_once_before_any_is_there_twice(name: str) -> None:
    """What a first seed leaves out, no later one has: an early picture is a whole one."""
    seeds = [spec.seed for spec in cells(name)]
    assert seeds == sorted(seeds)
    given = [spec.seed for spec in suites.with_seeds(cells(name), [5, 2])]
    assert given == sorted(given, reverse=True)
    assert set(given) == {5, 2}
    first = {key_without_seed(spec) for spec in cells(name) if spec.seed == 0}
    assert {key_without_seed(spec) for spec in cells(name)} == first


# (suite, model) -> between which alphas the printed densities lie: A.1's own, and where committed rows cross them
TARGETS = {
    ("mnist", "lenet-300-100"): (1e-3, 1.25e-3),
    ("mnist", "lenet-5-caffe"): (7.5e-4, 1.25e-3),
    ("mnist", "lstm-a"): (5e-4, 1.25e-3),
    ("mnist", "lstm-b"): (5e-4, 1.6e-3),
    ("cifar10", "vgg16"): (3.2e-6, 2.5e-5),
    ("cifar10", "wrn-16-8"): (3.2e-6, 2.5e-5),
    ("imagenet", "resnet50"): (2e-6, 2e-5),
}


@pytest.mark.parametrize(("suite", "model"), TARGETS)
def test_alphas_near_the_printed_densities_step_by_the_factor_of_a_match(suite: str, model: str) -> None:
    """A density counts as the printed one within a factor of 1.25; so five seeds of a rung can reproduce it."""
    low, high = TARGETS[suite, model]
    chosen = [s for s in where(suite, model=model, method="dst") if s.protocol[0] == "paper"]
    seeds = Counter(s.method["alpha"] for s in chosen if s.optimizer.lr == chosen[0].optimizer.lr)
    rungs = sorted(alpha for alpha in seeds if low <= alpha <= high)
    assert (rungs[0], rungs[-1]) == (low, high)
    assert {seeds[alpha] for alpha in rungs} == {5}
    assert all(after / before < 1.29 for before, after in itertools.pairwise(rungs))


def test_the_cells_that_were_trained_before_keep_their_run_ids() -> None:
    trained = set()
    for folder in ("lenet-300-100", "lenet-5-caffe", "lstm", "ladder", "baselines"):
        with (ROOT / f"paper_figures/results/mnist-{folder}/results.csv").open() as file:
            trained |= {row["run_id"] for row in csv.DictReader(file)}
    assert len(trained) >= 78
    assert trained <= {spec.run_id for spec in cells("mnist")}


@pytest.mark.parametrize("name", suites.NAMES)
def test_no_cell_is_listed_twice(name: str) -> None:
    listed = importlib.import_module(f"benchmark.suites.{name}").suite()
    assert len({spec.run_id for spec in listed}) == len(listed)


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_cell_survives_its_json_and_names_what_there_is(name: str) -> None:
    for spec in cells(name):
        again = from_dict(json.loads(spec.canonical_json), protocol=spec.protocol, departs=spec.departs)
        assert (again, again.run_id) == (spec, spec.run_id)
        assert spec.model.name in models.available()
        assert spec.data.name in data.available()


@pytest.mark.parametrize("name", ["my suite", "a;b", "n" * 101])
def test_a_suite_file_whose_name_is_no_name_of_a_suite_is_refused(name: str, tmp_path: Path) -> None:
    """DIR/suites/NAME.json is named after it, and the column `suite` joins names."""
    file = tmp_path / f"{name}.py"
    file.write_text("def suite():\n    return []\n")
    with pytest.raises(SpecError, match=r"the name of suite .* is .*: it must be 1 to 100 of the characters"):
        suites.load(str(file))


def test_no_suite_imports_torch_before_it_is_expanded() -> None:
    code = "import sys; from benchmark import suites; suites.describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_exhibit_of_the_paper_is_fed() -> None:
    fed = {exhibit for _, exhibits in suites.describe().values() for exhibit in exhibits}
    paper = {*(f"table{n}" for n in (1, 2, 3)), *(f"figure{n}" for n in range(3, 13)), "tableA2", "estimators"}
    assert paper <= fed


A1: dict[str, dict[str, Any]] = {
    "lenet": {"name": "sgd", "momentum": 0.9, "batch_size": 64, "epochs": 20, "lr": 0.01, "schedule": "constant"},
    "lstm": {"name": "adam", "momentum": 0.0, "batch_size": 100, "epochs": 20, "lr": 0.001, "schedule": "constant"},
    "cifar10": {"name": "sgd", "momentum": 0.9, "batch_size": 64, "epochs": 160, "milestones": (80, 120)},
    "imagenet": {"name": "sgd", "momentum": 0.9, "batch_size": 1024, "epochs": 90, "milestones": (30, 60, 80)},
}
STEPS: dict[str, Any] = {"schedule": "step", "gamma": 0.1}


@pytest.mark.parametrize("name", PAPER)
def test_the_optimizer_is_that_of_appendix_a1(name: str) -> None:
    for spec in cells(name):
        kind = spec.data.name if spec.data.name != "mnist" else spec.model.name.partition("-")[0]
        wanted = A1[kind] | (STEPS if "milestones" in A1[kind] else {})
        assert wanted.items() <= vars(spec.optimizer).items()
        assert spec.optimizer.weight_decay == (0 if spec.data.name == "mnist" else 1e-4)
        assert spec.optimizer.lr in {wanted.get("lr", 0.1), *([0.01] if spec.model.name == "vgg16" else [])}
        assert not spec.optimizer.nesterov


def test_the_stated_alphas_are_there() -> None:
    for name in mnist.LENETS:
        assert len(where("mnist", model=name, alpha=5e-4)) == 5
    for name in mnist.LSTMS:
        assert [spec.protocol for spec in where("mnist", model=name, alpha=1e-3, seed=3)] == [("paper",)]
        at_ladders_end = [("official",), ("paper",)]  # stated in one protocol, a rung of the ladder in the other
        assert [spec.protocol for spec in where("mnist", model=name, alpha=1e-4, seed=3)] == at_ladders_end
    for name in cifar10.MODELS:
        assert {spec.protocol for spec in where("cifar10", model=name, alpha=5e-6)} == {("paper",), ("official",)}


def test_the_figures_of_cifar10_have_their_alphas_and_learning_rates() -> None:
    def alphas(name: str, lr: float = 0.1, protocol: str = "paper") -> set[float]:
        found = where("cifar10", model=name, method="dst", lr=lr, seed=0)
        return {spec.method["alpha"] for spec in found if spec.protocol == (protocol,)}

    for name in ("vgg16", "wrn-16-8", "wrn-28-8"):
        rungs = set() if name == "wrn-28-8" else set(cifar10.RUNGS)
        assert alphas(name) - rungs == {1e-9, 1e-8, 1e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4}
    assert alphas("wrn-16-10") == {1e-6, 5e-6, 1e-5}
    for protocol in ("paper", "official"):
        assert alphas("vgg16", 0.01, protocol) == {5e-6}
        assert all({1e-6, 5e-6, 1e-5} <= alphas(name, protocol=protocol) for name in cifar10.MODELS)


def test_baselines_are_at_the_densities_they_are_compared_at() -> None:
    def densities(suite: str, model: str) -> set[tuple[str, float]]:
        found = [spec for spec in where(suite, model=model) if spec.density is not None]
        assert {spec.protocol[0] for spec in found} == {"paper"}
        return {(str(spec.method["name"]), spec.density or 0) for spec in found}

    four = ("static", "set", "dsr", "sparse_momentum")
    for name, printed in {"lenet-300-100": 0.0248, "lenet-5-caffe": 0.0164, "lstm-a": 0.0193, "lstm-b": 0.0098}.items():
        assert densities("mnist", name) == {(method, density) for method in four for density in (printed, 0.05)}
    for name in ("vgg16", "wrn-16-8"):
        assert densities("cifar10", name) == {(method, density) for method in four for density in (0.1, 0.05)}
    assert densities("imagenet", "resnet50") == {(m, d) for m in ("dsr", "sparse_momentum") for d in (0.2, 0.1)}


def test_dsr_moves_400_000_weights_of_resnet50_at_either_density() -> None:
    chosen = where("imagenet", method="dsr")
    assert {spec.density for spec in chosen} == {0.1, 0.2}
    for spec in chosen:
        assert spec.density is not None
        assert round(spec.method["prune_fraction"] * round(spec.density * imagenet.WEIGHTS)) == 400_000


DIFFERENCES = {
    ("cifar10", "dense"): {"data.normalization", "model.initialization"},
    ("cifar10", "dst"): {"data.normalization", "model.initialization", "method.threshold_weight_decay"},
    ("mnist", "dense"): {"model.initialization", "model.hidden_state"},
    ("mnist", "dst"): {"model.initialization", "model.hidden_state"},
}


@pytest.mark.parametrize(("suite", "method"), DIFFERENCES)
def test_the_protocols_differ_in_the_documented_fields_alone(suite: str, method: str) -> None:
    """A cell of one protocol against the other's with the same model, alpha, rate and seed."""

    def matching(protocol: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        found = [s for s in where(suite, method=method, seed=0) if s.protocol == (protocol,)]
        return {(s.model.name, s.method.get("alpha"), s.optimizer.lr): fields(s) for s in found}

    paper, official = matching("paper"), matching("official")
    assert set(official) <= set(paper)
    assert official
    for twin, values in official.items():
        changed = {name for name, value in values.items() if value != paper[twin][name]}
        assert changed - {"protocol"} == DIFFERENCES[suite, method]
        start = "official-dense" if method == "dense" else "official-masked"
        assert values["model.initialization"] == start
        if (suite, method) == ("cifar10", "dst"):
            decays = (paper[twin]["method.threshold_weight_decay"], values["method.threshold_weight_decay"])
            assert decays == (0, 1e-4)


def test_the_protocol_page_names_the_fields_and_counts() -> None:
    page = (ROOT / "docs/protocols.md").read_text()
    named = {name for changed in DIFFERENCES.values() for name in changed}
    assert [name for name in named if f"`{name}`" not in page] == []
    for name in (*PAPER, "resets", "gap_networks", "field", "rivals_mnist", "rivals_cifar10"):
        assert f"| `{name}` | {len(cells(name))} |" in page


@pytest.mark.parametrize("name", thresholds.COUNTS)
def test_equal_penalty_a_weight_is_the_vectors_penalty(name: str) -> None:
    shape = (3, 32, 32) if name == "vgg16" else (1, 28, 28)
    model = models.create(Model(name=name), in_shape=shape, classes=10, seed=0)
    weights = [p for p in model.parameters() if p.dim() > 1]
    counts = {
        "scalar": len(weights),
        "vector": sum(len(weight) for weight in weights),
        "matrix": sum(weight.numel() for weight in weights),
    }
    assert vars(thresholds.COUNTS[name]) == counts
    for kind, count in counts.items():
        penalty = thresholds.equal_penalty(name, kind) * count
        assert penalty == pytest.approx(thresholds.ALPHAS[name] * counts["vector"], rel=1e-12)


def test_thresholds_have_all_three_comparisons() -> None:
    for name, default in thresholds.ALPHAS.items():
        for shape in ("scalar", "vector", "matrix"):
            found = {spec.method["alpha"] for spec in where("thresholds", model=name, **{"method.threshold": shape})}
            assert {default, thresholds.equal_penalty(name, shape)} <= found
            assert len(found) == {"scalar": 8, "vector": 1, "matrix": 7}[shape]


def test_cells_that_two_suites_share_are_one_cell() -> None:
    known = {spec.run_id for name in ("mnist", "cifar10", "gap_networks") for spec in cells(name)}
    default = [*where("thresholds", **{"method.threshold": "vector"})]
    default += where("estimators", **{"method.estimator": "long_tailed"})
    assert {spec.run_id for spec in default} <= known
    assert len(where("estimators", **{"method.estimator": "straight_through"})) == 24


def test_the_models_behind_the_counts_of_imagenet() -> None:
    model = models.create(Model(name="resnet50"), in_shape=(3, 64, 64), classes=1000, seed=0)
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == imagenet.WEIGHTS


def test_the_official_normalization_is_applied_to_cifar10_alone() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    split = Split(images, torch.tensor([0, 1]))
    spec = cifar10.OFFICIAL
    made = Examples(split, split, 10, NORMALIZATIONS).dataset(spec, device=torch.device("cpu"))
    ((inputs, _),) = made.test_batches(2)
    mean, std = (torch.tensor(values) for values in NORMALIZATIONS["official"])
    assert torch.equal(inputs, standardized(images, mean, std))
    with pytest.raises(SpecError, match=r"unknown data\.normalization 'official'"):
        Examples(split, split, 10).dataset(spec, device=torch.device("cpu"))
    other = Data(name="digits", standardize=True, normalization="official")
    with pytest.raises(SpecError, match=r"data\.normalization is of cifar10 data only"):
        data.load(other, data_dir=Path(), device=torch.device("cpu"))
    with pytest.raises(SpecError, match=r"data\.normalization needs data\.standardize"):
        replace_fields(cells("mnist")[0], {"data.normalization": "official"})


def test_a_probe_spends_its_budget_on_every_model_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    probed: list[RunSpec] = []

    def step_seconds(spec: RunSpec) -> tuple[float, int]:
        nonlocal now
        now += 10
        probed.append(spec)
        return 1.0, 1

    monkeypatch.setattr("benchmark.commands.estimate.step_seconds", step_seconds)
    monkeypatch.setattr("benchmark.commands.estimate.time.monotonic", lambda: now)
    probe(Estimate(), cells("cifar10"), budget_seconds=5)
    assert [spec.model.name for spec in probed] == ["vgg16", "wrn-16-8", "wrn-28-8", "wrn-16-10"]
    assert len({key(spec) for spec in probed}) == 4


def test_a_changed_cell_that_is_another_protocols_brings_no_protocol_of_its_own() -> None:
    """The dense LSTM-a of `paper`, changed to the state and the initial weights of `official`, is that one."""
    dense = [
        s for s in suites.load("mnist").specs if (s.model.name, s.method["name"], s.seed) == ("lstm-a", "dense", 0)
    ]
    changes = {"model.hidden_state": "carried", "model.initialization": "official-dense"}
    paper, official = sorted(dense, key=lambda spec: "official" in spec.protocol)
    found = {spec.run_id: spec for spec in suites.with_fields(dense, changes)}
    assert {paper.protocol, official.protocol} == {("paper",), ("official",)}
    assert (found[official.run_id].protocol, found[official.run_id].departs) == (("official",), ())


SHORT = ("--where", "model=vgg16", "--seeds", "0", "--set", "optimizer.epochs=1", "--set", "data.train_limit=2000")


def test_a_short_vgg16_is_selected_and_departs(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.commands.estimate.step_seconds", lambda spec: (0.1, 100))
    finished = bench("run", "--dry-run", "--suite", "cifar10", *SHORT, "--out", tmp_path / "runs", "--json")
    assert finished.code == 0
    cells_to_run = finished.json["to_run"]
    assert len(cells_to_run) == len(where("cifar10", model="vgg16", seed=0))
    departs = ["optimizer.epochs=1 (suite: 160)", "data.train_limit=2000 (suite: None)"]
    assert all(cell["departs"] == departs for cell in cells_to_run)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.rare
def test_the_whole_of_cifar10_is_planned(bench: Bench, tmp_path: Path) -> None:
    finished = bench("plan", "--suite", "cifar10", "--seeds", "0", "--out", tmp_path / "runs", "--probe", "--json")
    assert (finished.code, finished.json["cells"]) == (0, CELLS["cifar10"])
    assert finished.json["estimated_seconds"] > 0


def test_each_condition_of_the_gap_has_a_dense_twin_and_the_stated_cells_are_those_of_table_1() -> None:
    specs = suites.load("gap").specs
    dense = {(s.data, s.model, s.optimizer, s.seed) for s in specs if s.method["name"] == "dense"}
    assert {(s.data, s.model, s.optimizer, s.seed) for s in specs} == dense
    table1 = {s for s in suites.load("mnist").specs if s.model.name == "lenet-300-100"}
    stated = {s for s in specs if (s.data, s.model, s.optimizer) == (mnist.MNIST, Model(name=gap.MODEL), mnist.SGD)}
    assert sum(s.step_records is not None for s in specs) == 5
    assert {s.run_id for s in table1 & stated if s.method.get("alpha") in (5e-4, 1e-3)} == {
        s.run_id
        for s in stated
        if s.method["name"] == "dst"
        and not s.method.get("absolute_threshold")
        and (s.method["threshold"], s.method["estimator"], s.method["reset_density"]) == ("vector", "long_tailed", 0.01)
    }


def test_each_candidate_for_the_gap_is_on_both_networks_beside_its_dense_twin() -> None:
    """A candidate that only doubles the alpha is the cell of `mnist`, so it is trained once."""
    specs = suites.load("gap_networks").specs
    of_mnist = {spec.run_id: spec.protocol for spec in cells("mnist")}
    for spec in specs:
        as_stated = (spec.data, spec.optimizer) == (mnist.MNIST, gap_networks.NETWORKS[spec.model.name][0])
        assert bool(spec.protocol) == as_stated
        assert spec.protocol == of_mnist.get(spec.run_id, spec.protocol)
    for spec in (s for s in specs if s.method["name"] == "dst"):
        twins = [s for s in specs if (s.data, s.model, s.optimizer) == (spec.data, spec.model, spec.optimizer)]
        assert {s.method["name"] for s in twins if s.seed == spec.seed} == {"dense", "dst"}
    on = {name: {s.seed for s in specs if s.model.name == name} for name in gap_networks.NETWORKS}
    assert on == {"lenet-5-caffe": set(range(5)), "lstm-a": set(range(5))}


def test_the_narrow_vgg_has_an_eighth_of_every_width() -> None:
    (model,) = {spec.model for spec in cells("cifar10_narrow")}
    assert model.widths == tuple(width // 8 for width in WIDTHS)


def test_the_epochs_of_the_first_seed_of_the_narrow_vgg_decay_for_all_weights_or_thresholds() -> None:
    """The stated schedule in both seeds; a schedule of one kind of parameter once, in no protocol."""
    of = Counter((spec.optimizer.schedule_of, spec.seed, spec.protocol) for spec in cells("cifar10_narrow"))
    assert of == {(None, 0, ("paper",)): 9, (None, 1, ("paper",)): 9, ("weights", 0, ()): 1, ("thresholds", 0, ()): 1}


def test_the_cells_of_validation_are_table_1s_on_fewer_examples_twice() -> None:
    """On the first 55,000, evaluated on the others, and on the test set."""
    stated = {key_without_seed(s) for s in cells("mnist") if s.protocol[:1] == ("paper",) and s.method["name"] == "dst"}
    found = cells("validation")
    assert len(found) == 2 * 4 * 3
    for spec in found:
        assert spec.protocol == ()
        assert (spec.data.validation, spec.data.train_limit) in ((5_000, None), (None, 55_000))
        whole = dataclasses.replace(spec, data=mnist.MNIST)
        figure4 = dataclasses.replace(whole, step_records=1)
        assert {key_without_seed(whole), key_without_seed(figure4)} & stated


def test_a_name_with_hyphens_is_that_of_the_suite() -> None:
    assert suites.load("rivals-mnist") == suites.load("rivals_mnist")
