"""Set-ups on several networks of Table 1: one explains all rows only if it meets both targets on all."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.layers_and_curves import LayerRatios
from analysis.data.read import load
from analysis.output.exhibit import Written
from benchmark import suites
from benchmark.spec import RunSpec

PRINTED = {"lenet-300-100": (0.0248, 97.69), "lenet-5-caffe": (0.0164, 99.11), "lstm-a": (0.0193, 98.70)}
DENSE = 99.3


def explains(spec: RunSpec) -> bool:
    """Standardised inputs with the straight-through estimator."""
    return spec.data.standardize and spec.method.get("estimator") == "straight_through"


def specs() -> list[RunSpec]:
    """All cells on the other networks, the same set-ups on LeNet-300-100, the stated ones."""
    own = list(suites.load("gap_networks").specs)
    first = [s for s in suites.load("gap").specs if s.optimizer.epochs in (20, 40)]
    stated = [s for s in suites.load("mnist").specs if s.model.name in PRINTED and "paper" in s.protocol]
    stated = [s for s in stated if s.method["name"] == "dense" or s.method.get("alpha") in (5e-4, 1e-3)]
    return list({s.run_id: s for s in [*own, *first, *stated]}.values())


def made(*, but: str = "") -> list[dict[str, Any]]:
    """One set-up explains all networks, save `but`; the others keep three times as much."""
    rows = []
    for spec in specs():
        share, accuracy = PRINTED[spec.model.name]
        if spec.method["name"] == "dense":
            share, accuracy = 1.0, DENSE
        elif not explains(spec) or spec.model.name == but:
            share *= 3
        rows.append(suite_rows.done(spec, accuracy=accuracy, density=share * (1 - 0.01 * spec.seed)))
    return rows


def built(folder: Path, rows: list[dict[str, Any]]) -> tuple[Written, list[dict[str, str]]]:
    written = exhibits(Results(load([suite_rows.write(folder / "in", rows)])))["gap-networks"](folder)
    path = folder / "gap-networks.csv"
    return written, list(csv.DictReader(path.open())) if path.exists() else []


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def test_all_set_ups_with_the_most_targets_met_are_named_first_the_one_with_both_on_most_networks(
    tmp_path: Path,
) -> None:
    """Without accuracies to meet elsewhere, one set-up meets both targets of a network, others one target of two."""
    rows = []
    for row, spec in zip(made(), specs(), strict=True):
        method = spec.method["name"]
        both = method == "dst" and explains(spec) and spec.model.name == "lenet-300-100"
        off = 0.0 if both or method == "dense" else 1.0
        half = method == "dst" and not explains(spec) and spec.model.name != "lstm-a"
        rows.append(row | {"test_accuracy": row["test_accuracy"] - (0.0 if half else off)} | (
            {"density": 3 * row["density"]} if method == "dst" and explains(spec) and not both else {}
        ))  # fmt: skip
    written, lines = built(tmp_path, rows)
    best = "standardised inputs, estimator straight through"
    assert lines[0]["set_up"] == best
    text = written.finding.partition("The most targets met are 2, by ")[2]
    assert text, written.finding
    assert int(text.split()[0]) > 1
    assert f"{best}, alpha times 1, meets both targets on 1 of 3 networks: " in text
    assert "meets both targets on 0 of 3 networks: " in text


def test_a_set_up_that_meets_both_targets_everywhere_comes_first_and_is_said_to_explain(tmp_path: Path) -> None:
    written, lines = built(tmp_path, made())
    assert [line["model"] for line in lines[:3]] == list(PRINTED)
    assert {line["set_up"] for line in lines[:3]} == {"standardised inputs, estimator straight through"}
    assert {(line["all_weights_met"], line["accuracy_met"]) for line in lines[:3]} == {("True", "True")}
    assert "all three in one way of counting: 1." in written.finding
    stated = [line for line in lines if line["set_up"] == "as stated"]
    assert [(line["model"], line["alpha"]) for line in stated] == [
        ("lenet-300-100", "0.0005"),
        ("lenet-5-caffe", "0.0005"),
        ("lstm-a", "0.001"),
    ]
    twice = [line for line in lines if line["alpha_factor"] == "2" and line["set_up"] == "only the alpha"]
    assert [(line["model"], line["alpha"]) for line in twice] == [
        ("lenet-300-100", "0.001"),
        ("lenet-5-caffe", "0.001"),
        ("lstm-a", "0.002"),
    ]


def test_a_set_up_that_fails_on_one_network_explains_nothing(tmp_path: Path) -> None:
    written, _ = built(tmp_path, made(but="lstm-a"))
    assert "all three in one way of counting: 0." in written.finding


def test_the_two_matrices_of_a_recurrent_layer_are_one_layer() -> None:
    names = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1", "lstm.weight_hh_l1", "fc.weight")
    kept = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    found = LayerRatios(("a",), names, np.array([10.0, 10.0, 20.0, 20.0, 5.0]), kept).by_layer()
    assert found.names == ("lstm._l0", "lstm._l1", "fc.weight")
    assert found.kept.tolist() == [[3.0, 7.0, 5.0]]
    assert found.weights.tolist() == [20.0, 40.0, 5.0]


def test_a_set_up_of_one_network_is_not_listed(tmp_path: Path) -> None:
    _, lines = built(tmp_path, made())
    counts: dict[tuple[str, str], int] = {}
    for line in lines:
        key = line["set_up"], line["alpha_factor"]
        counts[key] = counts.get(key, 0) + 1
    assert min(counts.values()) > 1
    assert "batch size 128" not in {line["set_up"] for line in lines}
