"""Each figure's data, recomputed from the rows; its sentence; and what it says of what was not run."""

from __future__ import annotations

import csv
import json
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import suite_rows
import synthetic
import synthetic_figures

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits import figure1_2
from analysis.output.exhibit import Written
from analysis.output.plotting import greek
from analysis.paper import printed

Row = dict[str, Any]
EMPTY = dict.fromkeys(("test_accuracy", "best_test_accuracy", "density", "density_at_best_test_accuracy"), "")
CURVES = {
    "figure4": ("lenet-300-100", 5e-4, 0.01),
    "figure5": ("vgg16", 5e-6, 0.1),
    "figure6": ("vgg16", 5e-6, 0.01),
    "figure8": ("wrn-16-8", 1e-5, 0.1),
    "figure9": ("wrn-16-10", 1e-5, 0.1),
    "figure10": ("wrn-28-8", 1e-5, 0.1),
    "figure8-default-alpha": ("wrn-16-8", 5e-6, 0.1),
}
PATTERNS = {"figure7": "vgg16", "figure11": "wrn-16-8", "figure12": "wrn-16-10"}


@pytest.fixture(autouse=True)
def no_files_of_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and closed; test_build.py writes them."""
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def results_of(folder: Path, rows: list[Row]) -> Results:
    tables = load([synthetic_figures.write(folder, rows)])
    return Results(tables)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*synthetic_figures.cifar10(), *synthetic_figures.mnist()]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Results:
    return results_of(tmp_path_factory.mktemp("full"), rows)


def made(results: Results, name: str, out: Path) -> Written:
    return exhibits(results)[name](out)


def data(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def rate(row: Row) -> float:
    return float(json.loads(row["spec"])["optimizer"]["lr"])


@pytest.mark.parametrize("name", CURVES)
def test_the_curves_are_the_traces_of_the_papers_condition_and_its_dense_twin(
    name: str, full: Results, rows: list[Row], tmp_path: Path
) -> None:
    model, alpha, lr = CURVES[name]
    cells = [r for r in rows if r["model"] == model and rate(r) == lr and r["alpha"] in ("", alpha)]
    written = made(full, name, tmp_path)
    layers = list(synthetic_figures.LAYERS[model])
    shown = [*layers[:5], layers[-1]] if model.startswith("wrn") else layers
    names = {"density", "test_accuracy", *(f"density/{layer}" for layer in shown)}
    wanted = {
        (t["run_id"], str(t["epoch"]), str(t["step"]), t["name"]): t["value"]
        for t in synthetic_figures.traces(cells)
        if t["name"] in names
    }
    found = {
        (r["run_id"], r["epoch"], r["step"], key): float(value)
        for r in data(tmp_path, name)
        for key, value in r.items()
        if key in names and value
    }
    assert found == pytest.approx(wanted)
    assert written.run_ids == tuple(sorted(r["run_id"] for r in cells))
    assert written.remark == ""


@pytest.mark.parametrize("name", PATTERNS)
def test_the_patterns_are_the_layer_tables_of_the_three_alphas(
    name: str, full: Results, rows: list[Row], tmp_path: Path
) -> None:
    made(full, name, tmp_path)
    cells = [r for r in rows if r["model"] == PATTERNS[name] and r["alpha"] in (1e-6, 5e-6, 1e-5) and rate(r) == 0.1]
    wanted = {(r["run_id"], r["parameter"]): r["kept"] / r["weights"] * 100 for r in synthetic_figures.layers(cells)}
    found = {(r["run_id"], r["parameter"]): float(r["remaining_percent"]) for r in data(tmp_path, name)}
    assert found == pytest.approx(wanted)


def test_figure3_shows_every_alpha_of_three_models_and_the_dense_band(
    full: Results, rows: list[Row], tmp_path: Path
) -> None:
    written = made(full, "figure3", tmp_path)
    cells = [r for r in rows if r["model"] in ("vgg16", "wrn-16-8", "wrn-28-8") and rate(r) == 0.1]
    found = {r["run_id"]: (float(r["test_accuracy"]), float(r["density"])) for r in data(tmp_path, "figure3")}
    last = ("test_accuracy", "density")
    assert found == {r["run_id"]: tuple(float(r[name]) for name in last) for r in cells}
    own = [r for r in cells if r["model"] == "vgg16"]
    dense = [r for r in own if r["method"] == "dense"]
    alphas = {r["alpha"] for r in own if r["method"] == "dst"}
    means = [[statistics.fmean(r[name] for r in own if r["alpha"] == alpha) for alpha in alphas] for name in last]
    accuracy, kept = ((min(values), max(values)) for values in means)
    assert f"keeps {100 * kept[0]:.3g} to {100 * kept[1]:.3g} % of its weights" in written.finding
    assert f"reaches {accuracy[0]:.2f} to {accuracy[1]:.2f} % accuracy" in written.finding
    assert f"dense {statistics.fmean(r[last[0]] for r in dense):.2f} %" in written.finding


def test_findings_say_what_the_output_layer_does_when_the_learning_rate_decays(full: Results, tmp_path: Path) -> None:
    finding = made(full, "figure5", tmp_path).finding
    assert "FC 2, the output layer, keeps 12 % at epoch 80, before the learning rate decays, and 100 %" in finding
    assert "n=3" in finding
    assert "layer 1 first keeps less than 10 % at epoch 9" in made(full, "figure4", tmp_path).finding


def test_partial_data_are_drawn_and_counted(rows: list[Row], tmp_path: Path) -> None:
    changed = [r for r in rows if r["model"] in ("vgg16", "wrn-16-10")]
    for i, r in enumerate(changed):
        if r["model"] == "vgg16" and r["alpha"] == 5e-6 and r["seed"] == 2:
            changed[i] = r | EMPTY | {"status": "diverged"}
        elif (r["model"] == "vgg16" and r["alpha"] == 1e-6) or (r["model"] == "wrn-16-10" and r["method"] == "dense"):
            changed[i] = r | EMPTY | {"status": "pending"}
    results = results_of(tmp_path / "in", changed)
    names = (*(f"figure{i}" for i in (3, 4, 5, 7, 8, 9, 10, 11)), "mnist-figure3")
    remarks = {name: made(results, name, tmp_path).remark for name in names}
    assert "WideResNet-16-8 not run; WideResNet-28-8 not run; vgg16 dst alpha 1e-06: n=0/3" in remarks["figure3"]
    assert "left out: 1 diverged" in remarks["figure3"]
    assert remarks["figure5"] == "vgg16 dst alpha 5e-06: n=2/3; left out: 1 diverged"
    assert remarks["figure7"].startswith("alpha 1e-06: not run; vgg16 dst alpha 5e-06: n=2/3")
    assert remarks["figure9"] == "wrn-16-10 dense: n=0/3"
    assert {remarks[name] for name in ("figure4", "figure8", "figure10", "figure11", "mnist-figure3")} == {"not run"}
    assert {r["seed"] for r in data(tmp_path, "figure5") if r["method"] == "dst"} == {"0", "1"}


def test_sparse_and_dense_are_compared_over_the_seeds_that_both_have(rows: list[Row], tmp_path: Path) -> None:
    """Sparse has seed 0; dense is run with it and, far better, with seed 1."""
    given = [r for r in rows if r["model"] == "vgg16" and rate(r) == 0.1 and r["alpha"] in ("", 5e-6, None)]
    sparse = next(r for r in given if r["method"] == "dst" and r["seed"] == 0)
    dense = {r["seed"]: r for r in given if r["method"] == "dense"}
    folder = suite_rows.write(tmp_path / "in", [sparse, dense[0], dense[1]], traces=[
        *suite_rows.records(sparse, {name: [0.5, 0.2] for name in ("density", "density/fc2.weight")}),
        *suite_rows.records(sparse, {"test_accuracy": [70, 80]}),
        *suite_rows.records(dense[0], {"test_accuracy": [60, 90]}),
        *suite_rows.records(dense[1], {"test_accuracy": [99, 99]}),
    ])  # fmt: skip
    finding = made(Results(load([folder])), "figure5", tmp_path).finding
    assert "sparse accuracy 80.00 %, dense 94.50 %; sparse is above dense in 1 of 2 epochs (n=1 in both)" in finding


def test_runs_without_records_are_counted_and_said(rows: list[Row], tmp_path: Path) -> None:
    """No dense run and no third seed has traces; seed 0 of alpha 1e-6 and all of 1e-5 have no layers."""
    folder = synthetic_figures.write(tmp_path / "in", [r for r in rows if r["model"] == "vgg16"])
    drop = {
        "traces": {r["run_id"] for r in rows if r["method"] == "dense" or r["seed"] == 2},
        "layers": {r["run_id"] for r in rows if r["alpha"] == 1e-5 or (r["alpha"] == 1e-6 and r["seed"] == 0)},
    }
    for name, ids in drop.items():
        header, *lines = (folder / f"{name}.csv").read_text().splitlines()
        kept = [line for line in lines if line.partition(",")[0] not in ids]
        (folder / f"{name}.csv").write_text("\n".join([header, *kept]) + "\n")
    results = Results(load([folder]))
    curves, pattern = made(results, "figure5", tmp_path), made(results, "figure7", tmp_path)
    assert "dense no traces.csv" in curves.finding
    assert "vgg16 dst alpha 5e-06: n=2/3" in curves.remark
    assert pattern.remark == "alpha 1e-05: no layers.csv; vgg16 dst alpha 1e-06: n=2/3"


def test_a_dense_network_that_was_not_run_is_missed_in_figure3(rows: list[Row], tmp_path: Path) -> None:
    given = [r for r in rows if r["model"] == "vgg16" and r["method"] == "dst"]
    assert "accuracy, the highest" in (found := made(results_of(tmp_path / "in", given), "figure3", tmp_path).finding)
    assert "dense not run" in found


def test_without_traces_and_layers_the_figures_say_so(rows: list[Row], tmp_path: Path) -> None:
    folder = synthetic_figures.write(tmp_path / "in", [r for r in rows if r["model"] == "vgg16"])
    for name in ("traces", "layers"):
        (folder / f"{name}.csv").unlink()
    tables = load([folder])
    results = Results(tables)
    assert made(results, "figure5", tmp_path).remark == "no traces.csv beside the results of its runs"
    assert made(results, "figure7", tmp_path).remark == "no layers.csv beside the results of its runs"


def test_empty_tables_give_the_two_drawings_alone(rows: list[Row], tmp_path: Path) -> None:
    results = results_of(tmp_path / "in", [])
    written = {name: made(results, name, tmp_path) for name in exhibits(results) if _is_figure(name)}
    assert {name for name, w in written.items() if w.files} == {"figure1", "figure2"}
    assert {w.remark for name, w in written.items() if not w.files} == {"not run"}


def _is_figure(name: str) -> bool:
    """Not the table of the verdicts on a figure's printed values, which says that nothing is run."""
    return "figure" in name and not name.endswith("-verdicts")


def test_official_runs_alone_are_shown_and_labelled(rows: list[Row], tmp_path: Path) -> None:
    official = [r | {"protocol": "official"} for r in rows if r["model"] == "vgg16"]
    results = results_of(tmp_path / "in", official)
    assert made(results, "figure3", tmp_path).files
    assert {r["panel"] for r in data(tmp_path, "figure3")} == {"VGG-16, official"}


def test_other_data_sets_and_mnist_have_the_layouts_too(rows: list[Row], tmp_path: Path) -> None:
    lenets = [r | {"protocol": ""} for r in rows if r["model"].startswith("lenet")]
    digits = [synthetic.changed(r, lambda spec: spec["data"].update(name="digits")) for r in lenets]
    results = results_of(tmp_path / "in", digits)
    assert len(data_of(results, "digits-figure3", tmp_path)) == 2 * 3 * 4
    assert {r["alpha"] for r in data_of(results, "digits-figure4", tmp_path)} == {"", "0.0005"}
    assert {r["model"] for r in data_of(results, "digits-figure7", tmp_path)} == {"lenet-300-100", "lenet-5-caffe"}


def test_set_ups_of_another_data_set_stand_in_panels_of_their_own(tmp_path: Path) -> None:
    rows = [
        synthetic.cell("lenet-300-100", "dst", 0, dataset="digits", protocol="", epochs=epochs, alpha=alpha)
        for alpha, epochs in ((5e-4, 20), (1e-3, 20), (1e-3, 60))
    ]
    rows.append(synthetic.cell("lenet-300-100", "dst", 0, dataset="digits", protocol="", alpha=2e-3,
                               sections={"data": {"train_limit": 100}}))  # fmt: skip
    found = data_of(results_of(tmp_path / "in", rows), "digits-figure3", tmp_path)
    assert sorted((line["panel"], line["alpha"]) for line in found) == [
        ("Lenet-300-100", "0.0005"), ("Lenet-300-100", "0.001"), ("Lenet-300-100, epochs 60", "0.001"),
    ]  # fmt: skip


def data_of(results: Results, name: str, out: Path) -> list[dict[str, str]]:
    made(results, name, out)
    return data(out, name)


def test_a_pattern_after_resets_says_that_its_ranks_are_partly_chance(rows: list[Row], tmp_path: Path) -> None:
    quiet = [{**row, "threshold_resets": 0} for row in rows]
    reset = [{**row, "threshold_resets": 3 if row["model"] == "lenet-5-caffe" else 0} for row in rows]
    found = [results_of(tmp_path / name, some) for name, some in (("quiet", quiet), ("reset", reset))]
    remarks = [made(results, "mnist-figure7", tmp_path).remark for results in found]
    assert "partly chance" not in remarks[0]
    assert "resets at lenet-5-caffe dst" in remarks[1]
    assert "partly chance" in remarks[1]


def test_a_pattern_leaves_out_alphas_that_are_reset_more_than_twice_an_epoch(rows: list[Row], tmp_path: Path) -> None:
    own = [row for row in rows if row["model"] == "lenet-300-100" and row["alpha"] != ""]
    highest = max(own, key=lambda row: float(row["alpha"]))["alpha"]
    for resets_an_epoch, shown in ((2, True), (3, False)):
        counts = {highest: resets_an_epoch}
        changed = [{**r, "threshold_resets": counts.get(r["alpha"], 0) * int(r["epochs"])} for r in own]
        folder = tmp_path / str(resets_an_epoch)
        found = {r["alpha"] for r in data_of(results_of(folder, changed), "mnist-figure7", tmp_path)}
        assert found
        assert (str(highest) in found) == shown


def test_a_pattern_is_of_the_papers_protocol_where_it_has_runs_and_otherwise_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official protocol's alpha, 1e-4, is the lowest of all."""
    official = [
        synthetic.cell("lstm-b", "dst", seed, alpha=1e-4, lr=0.001, protocol="official", kept=0.1) for seed in (0, 1)
    ]
    paper = [synthetic.cell("lstm-b", "dst", seed, alpha=1e-3, lr=0.001, protocol="paper") for seed in (0, 1)]
    for rows, alpha, said in (([*official, *paper], "0.001", False), (official, "0.0001", True)):
        folder = tmp_path / alpha
        synthetic.write(folder, rows)
        kept = [
            {"run_id": row["run_id"], "parameter": f"lstm.weight_{kind}_l0", "weights": 1000, "kept": 100}
            for row in rows
            for kind in ("ih", "hh")
        ]
        synthetic.save(folder / "layers.csv", ("run_id", "parameter", "weights", "kept"), kept)
        titles: list[str] = []
        monkeypatch.setattr(
            "analysis.exhibits.figure7.several_models", lambda *given, to=titles: to.append(given[1]) or plt.figure()
        )
        written = made(Results(load([folder])), "mnist-figure7", tmp_path)
        assert {row["alpha"] for row in data(tmp_path, "mnist-figure7")} == {alpha}
        assert written.run_ids
        assert ["LSTM-b: official protocol; " in title for title in titles] == [said]


def test_figure1s_example_follows_equations_1_and_2(full: Results, tmp_path: Path) -> None:
    rows = data_of(full, "figure1", tmp_path)
    assert {r["M"] for r in rows} == {"0", "1"}
    for r in rows:
        w, t, q = (float(r[name]) for name in ("W", "t", "Q"))
        assert q == pytest.approx(abs(w) - t)
        assert int(r["M"]) == (q > 0)
        assert float(r["P"]) == w * (q > 0)


def test_figure1_has_the_gradients_of_appendix_a3_and_calls_structure_what_the_weights_receive() -> None:
    figure = figure1_2.draw_masked_layer(figure1_2.example(), "")
    texts = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    (structure,) = (text for text in texts if text.startswith("structure gradient"))
    assert structure.split("\n") == ["structure gradient", "dP ⊙ W ⊙ H(Q) ⊙ sgn(W)"]
    assert "performance gradient\ndP ⊙ M" in texts
    labels = {"W": "weights W", "t": "thresholds t,\none per row", "P": "P = W ⊙ M, sparse", "Q": "Q = |W| − t",
              "M": "mask M = S(Q)"}  # fmt: skip

    def nearest(place: tuple[float, float]) -> str:
        """The matrix, three rows high, below its label, whose edge is nearest to one end of an arrow."""

        def distance(name: str) -> float:
            x, y = texts[labels[name]]
            sideways = abs(place[0] - x) - (0.5 if name == "t" else 2.0)
            return math.hypot(max(0.0, sideways), max(0.0, abs(place[1] - (y - 1.65)) - 1.5))

        return min(labels, key=distance)

    arrows = {(nearest(start), nearest(end)) for start, end in figure1_2.BACKWARD}
    assert arrows == {("P", "W"), ("P", "M"), ("M", "Q"), ("Q", "W"), ("Q", "t")}
    plt.close(figure)


def test_the_gradients_of_figure1_are_those_that_are_trained_with() -> None:
    """The two gradients of W and the one of t on the example layer, against autograd through equations 1 to 3."""
    import torch

    from methods.thresholds import ESTIMATORS

    w = torch.tensor(figure1_2.WEIGHTS, dtype=torch.float64)
    t = torch.tensor(figure1_2.THRESHOLDS, dtype=torch.float64)
    d_p = torch.arange(12, dtype=torch.float64).reshape(3, 4) - 5
    q = w.abs() - t[:, None]
    mask = torch.tensor([[figure1_2.step(float(x)) for x in row] for row in q], dtype=torch.float64)
    h = torch.tensor([[figure1_2.long_tailed(float(x)) for x in row] for row in q], dtype=torch.float64)
    assert torch.allclose(h, ESTIMATORS["long_tailed"](q))
    weight, threshold = w.clone().requires_grad_(), t.clone().requires_grad_()
    soft = weight.abs() - threshold[:, None]
    estimated = mask + h * (soft - soft.detach())  # S forward, H backward
    (weight * estimated).backward(d_p)
    assert weight.grad is not None
    assert threshold.grad is not None
    assert torch.allclose(weight.grad, d_p * mask + d_p * w * h * w.sign())
    assert torch.allclose(threshold.grad, (-d_p * w * h).sum(dim=1))


def test_figure2s_functions_are_those_that_are_trained_with(full: Results, tmp_path: Path) -> None:
    import torch

    from methods.thresholds import ESTIMATORS

    found = data_of(full, "figure2", tmp_path)
    x = torch.tensor([float(r["x"]) for r in found], dtype=torch.float64)
    for name, estimator in ESTIMATORS.items():
        assert [float(r[name]) for r in found] == pytest.approx(estimator(x).tolist())
    assert [figure1_2.long_tailed(v) for v in (0, 0.2, 0.4, -0.7, 1, 1.01)] == pytest.approx([2, 1.2, 0.4, 0.4, 0.4, 0])
    assert [r["impulse"] for r in found if float(r["x"]) == 0] == ["inf"]


def test_every_figure_has_the_papers_caption_and_place() -> None:
    for i in range(1, 13):
        assert printed.PLACES[f"figure{i}"].startswith(f"Figure {i}, ")
        assert printed.CAPTIONS[f"figure{i}"]
    assert greek("alpha = 5e-06, alphabet") == "α = 5e-6, alphabet"


def test_cells_of_one_epoch_are_drawn_without_a_warning(tmp_path: Path) -> None:
    one = {"dataset": "digits", "epochs": 1}
    rows = [synthetic.cell("lenet-300-100", "dense", 0, **one)]
    rows += [synthetic.cell("lenet-300-100", "dst", 0, alpha=5e-4, kept=0.1, **one)]
    results = results_of(tmp_path / "in", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(results, "digits-figure4", tmp_path).remark != "no runs yet"
