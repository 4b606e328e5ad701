"""`speed grid`: its arithmetic, what it runs, what it refuses. No speed is asserted anywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from grids import Bench

from benchmark.launch.base import Event
from benchmark.spec import Data, RunSpec
from benchmark.speed import grids as grid_speed
from benchmark.speed.grids import Setup, Times, note, row, summary
from benchmark.speed.start_up import MeasurementError

TWO = Setup(epochs=2, workers=2, device="cpu", data_dir=Path("data"))
# two workers, two cells each: 4 and 6 s of each first cell's first epoch are no training, 1 s of each second one's
TIMES = [Times(0.0, 24.0, 4.0), Times(0.0, 26.0, 6.0), Times(24.0, 44.0, 1.0), Times(26.0, 50.0, 1.0)]


def summed(model: str, method: str) -> dict[str, object]:
    return summary(grid_speed.specs_of(model, method, TWO)[0], TIMES, [18.0, 20.0], 55.0, workers=2)


def test_start_up_is_separated_from_the_steady_state() -> None:
    found = summed("lenet-300-100", "dst")
    assert found["start_up_seconds"] == 5.0 - 1.0
    assert found["epoch_seconds"] == 22.0 / 2, "a steady cell takes 20 and 24 s for two epochs"
    assert found["epoch_training_seconds"] == 19.0 / 2
    assert found["cells_an_hour"] == pytest.approx(3600 * 2 / 22)
    assert (found["cells"], found["epochs"], found["whole_seconds"]) == (4, 2, 55.0)


@pytest.mark.parametrize(("model", "authors"), [("lenet-300-100", 13.6), ("lenet-5-caffe", 29.5), ("lstm-a", 198.0)])
def test_the_authors_do_the_same_epochs_one_after_another(model: str, authors: float) -> None:
    found = summed(model, "dst")
    assert found["authors_epoch_seconds"] == pytest.approx(authors)
    assert found["authors_ratio"] == pytest.approx(authors * 2 / (22 / 2)), "two workers end a cell every 11 s"
    assert found["whole_authors_ratio"] == pytest.approx(authors * 2 * 4 / 55)


@pytest.mark.parametrize(("model", "method"), [("lenet-300-100", "dense"), ("lstm-b", "dst")])
def test_nothing_is_compared_with_what_the_authors_were_not_measured_at(model: str, method: str) -> None:
    found = summed(model, method)
    assert found["authors_ratio"] is found["whole_authors_ratio"] is None
    assert row(found)[-1] == "-"
    assert len(row(found)) == len(grid_speed.COLUMNS)


def test_the_cells_are_the_papers_on_its_data() -> None:
    specs = grid_speed.specs_of("lstm-a", "dst", TWO)
    assert [spec.seed for spec in specs] == [0, 1, 2, 3], "two rounds of two workers"
    assert {spec.data for spec in specs} == {Data(name="mnist")}
    assert {(spec.optimizer.batch_size, spec.optimizer.epochs) for spec in specs} == {(100, 2)}


def test_made_up_pixels_are_as_many_as_the_real_ones() -> None:
    made_up = dataclasses.replace(TWO, data="synthetic")
    lenet, vgg = (grid_speed.specs_of(model, "dense", made_up)[0].data for model in ("lenet-5-caffe", "vgg16"))
    assert (lenet.name, lenet.shape, lenet.train_limit, lenet.test_limit) == ("synthetic", None, 60_000, 10_000)
    assert (vgg.name, vgg.shape, vgg.train_limit) == ("synthetic", (3, 32, 32), 50_000)


def test_untrained_seconds_are_those_of_the_first_epoch_without_training() -> None:
    times: dict[str, Times] = {}
    note(times, Event("a", "started"), 10.0)
    note(times, Event("a", "epoch", {"epoch": 1, "train_seconds": 2.0}), 15.0)
    note(times, Event("a", "epoch", {"epoch": 2, "train_seconds": 4.0}), 18.0)
    note(times, Event("a", "end", {"status": "done", "error": ""}), 19.0)
    assert times == {"a": Times(started=10.0, ended=19.0, untrained=3.0)}


@pytest.mark.parametrize(
    "event",
    [
        Event("a", "end", {"status": "failed", "error": "its worker died"}),
        Event("a", "warning", {"warning": "its worker died"}),
    ],
    ids=lambda event: event.kind,
)
def test_a_grid_that_was_disturbed_is_not_measured(event: Event) -> None:
    times: dict[str, Times] = {}
    note(times, Event("a", "started"), 1.0)
    with pytest.raises(MeasurementError, match="cell a: its worker died"):
        note(times, event, 2.0)


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (["--model", "lenet-300"], 2, ["unknown model 'lenet-300'", "did you mean 'lenet-300-100'?"]),
        (["--method", "dts"], 2, ["unknown method 'dts'", "did you mean 'dst'?"]),
        (["--data", "mnist"], 2, ["unknown --data 'mnist'", "own, synthetic"]),
        (["--device", "gpu"], 2, ["unknown device 'gpu'"]),
        (["--data-dir", "nowhere"], 3, ["MNIST is not in nowhere"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_a_wrong_option_of_the_grid_is_one_line(
    arguments: list[str], code: int, fragments: list[str], bench: Bench
) -> None:
    finished = bench("speed", "grid", *arguments)
    assert (finished.code, finished.stdout) == (code, "")
    assert all(fragment in finished.error for fragment in fragments), finished.error


ONE = ("speed", "grid", "--model", "lenet-300-100", "--method", "dst", "--epochs", "2", "--workers", "1")
MADE_UP = ("--device", "cpu", "--data", "synthetic", "--json")


def shorten(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: float) -> None:
    """Few examples in place of the whole data, other settings of the optimizer, and temporary folders in one place."""
    whole = grid_speed.specs_of

    def few(model: str, method: str, setup: Setup) -> list[RunSpec]:
        pixels = Data(name="synthetic", train_limit=128, test_limit=32)
        specs = whole(model, method, setup)
        optimizer = dataclasses.replace(specs[0].optimizer, **changes)
        return [dataclasses.replace(spec, data=pixels, optimizer=optimizer) for spec in specs]

    monkeypatch.setattr(grid_speed, "specs_of", few)
    monkeypatch.setattr(grid_speed.tempfile, "tempdir", str(folder))


@pytest.mark.slow
def test_a_grid_runs_its_cells_and_leaves_nothing_behind(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, tmp_path)
    finished = bench(*ONE, *MADE_UP)
    assert finished.code == 0, finished.stderr
    document = finished.json
    assert (document["kind"], document["workers"], document["mlflow"]) == ("grid", 1, False)
    assert document["data"].startswith("made-up")
    assert {"torch", "device_name", "threads", "kernel_path", "commit"} <= set(document["machine"])
    (found,) = document["grids"]
    assert (found["model"], found["method"], found["cells"], found["epochs"]) == ("lenet-300-100", "dst", 2, 2)
    assert 0 < found["epoch_training_seconds"] < found["epoch_seconds"] < found["whole_seconds"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_grid_whose_cell_diverges_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, tmp_path, lr=1e30)
    finished = bench(*ONE, *MADE_UP)
    assert finished.code == 1
    assert "not finite" in finished.error
    assert list(tmp_path.iterdir()) == []
