"""`speed sparse`: every row is measured, and the table that `auto` reads is what it writes. No speed is asserted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from grids import Bench

from benchmark.speed import sparse
from methods import execution

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_network_and_layer_is_measured(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "NETWORKS", ((20, 16, 10),))
    monkeypatch.setattr(sparse, "NETWORK_DENSITIES", (0.5, 0.1))
    monkeypatch.setattr(sparse, "SHAPES", ((16, 20),))
    monkeypatch.setattr(sparse, "EXAMPLES", (1, 9))
    monkeypatch.setattr(sparse, "DENSITIES", (0.2,))
    document = bench(
        "speed", "sparse", "--steps", "5", "--seconds", "0", "--table", tmp_path / "table.csv", "--json"
    ).json
    assert [row["network"] for row in document["networks"]] == ["20-16-10"] * 2
    for row in document["networks"]:
        assert row["masked"]["lower"] <= row["masked"]["median"] <= row["masked"]["upper"]
        assert row["memory_masked"] > 1  # the masks
    half, tenth = (row["memory_sparse"] for row in document["networks"])
    assert tenth < half
    with (tmp_path / "table.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    with execution.TABLE.open(newline="") as file:
        assert list(csv.DictReader(file).fieldnames or ()) == list(written[0]) == list(sparse.FIELDS)
    assert [row["examples"] for row in written] == ["1", "9"]
    assert float(written[0]["masked"]) == pytest.approx(document["layers"][0]["masked"], rel=1e-3)


def test_a_table_that_cannot_be_written_is_one_line(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "NETWORKS", ())
    monkeypatch.setattr(sparse, "SHAPES", ())
    finished = bench("speed", "sparse", "--table", tmp_path / "none" / "table.csv")
    assert finished.code == 2
    assert "table.csv: No such file or directory; give a file that can be written" in finished.error


def test_kept_weights_need_less_memory_than_their_dense_training() -> None:
    dense, masked, kept = (sparse.Arm((64, 128, 64), 0.05, how) for how in (None, "dense", "sparse"))
    for inputs, targets in sparse.batches_of(64, 64, 8, count=2):
        for arm in (dense, masked, kept):
            arm.step(inputs, targets)
    assert kept.bytes() < 0.2 * dense.bytes() < masked.bytes()
