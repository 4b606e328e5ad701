"""Data sets from outside the package: what they have to return, and what follows from it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import Bench

from benchmark import data
from benchmark.data.catalogue import DataError
from benchmark.data.tensors import Examples, Split
from benchmark.spec import Data, SpecError

CPU = torch.device("cpu")


def examples(images: Any = None, labels: Any = None, classes: Any = 3, test: Split | None = None) -> Examples:
    images = torch.arange(6 * 8, dtype=torch.uint8).reshape(6, 1, 2, 4) if images is None else images
    train = Split(images, torch.arange(6) % 3 if labels is None else labels)
    return Examples(train, Split(train.images[:3], torch.arange(3)) if test is None else test, classes)


class Own:
    """With functions of its own."""

    def __init__(self) -> None:
        self.fetched: list[Path] = []

    def read(self, spec: Data, data_dir: Path) -> Examples:
        return examples()

    def fetch(self, data_dir: Path) -> None:
        self.fetched.append(data_dir)

    def verify(self, data_dir: Path) -> list[str]:
        if not data_dir.exists():
            raise DataError(f"{data_dir} is missing: make it")
        return ["all good"]

    def fingerprint(self, data_dir: Path) -> str:
        return "own-1"


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module whose `read` returns `made`."""
    module = types.ModuleType("their_data")

    def read(spec: Data, data_dir: Path) -> Any:
        """Counts.

        More.
        """
        return vars(module)["made"]

    vars(module).update(read=read, own=Own(), made=examples(), five=5)
    monkeypatch.setitem(sys.modules, "their_data", module)
    with data.plug_ins.temporary():
        for name, path in {
            "counts": "their_data:read",
            "own": "their_data:own",
            "whole": "their_data",
            "five": "their_data:five",
        }.items():
            data.register(name, path)
        yield module


def load(name: str = "counts", **fields: Any) -> data.tensors.TensorDataset:  # type: ignore[name-defined]
    return data.load(Data(name=name, **fields), data_dir=Path("nowhere"), device=CPU)


@pytest.mark.usefixtures("theirs")
def test_a_function_is_enough() -> None:
    assert data.describe()["counts"] == "Counts."
    found = load()
    assert (found.name, found.in_shape, found.classes, found.train_size, found.test_size) == (
        "counts",
        (1, 2, 4),
        3,
        6,
        3,
    )
    ((inputs, labels),) = found.test_batches(9)
    assert torch.equal(inputs, examples().test.images / 255)
    assert labels.tolist() == [0, 1, 2]
    assert load("whole").train_size == 6
    data.fetch("counts", Path("nowhere"))


@pytest.mark.usefixtures("theirs")
def test_limits_validation_and_statistics_apply_as_to_any_data_set() -> None:
    found = load(validation=2, train_limit=3, standardize=True)
    assert (found.train_size, found.test_size) == (3, 2)
    assert found.mean.item() == pytest.approx(examples().train.images.float().mean().item() / 255)
    with pytest.raises(SpecError, match=r"data\.shape is of synthetic data only: leave it out for 'counts'"):
        load(shape=(1, 2, 2))


def test_a_channel_without_any_deviation_is_not_standardised(theirs: types.ModuleType) -> None:
    images = torch.randint(256, (6, 2, 2, 4)).to(torch.uint8)
    images[:, 1] = 7
    both = Split(images, torch.arange(6) % 3)
    vars(theirs)["made"] = Examples(both, both, classes=3)
    assert load().train_size == 6
    with pytest.raises(SpecError, match="counts: channel 1 is constant, so it cannot be standardised"):
        load(standardize=True)


def test_the_fingerprint_is_of_the_bytes(theirs: types.ModuleType) -> None:
    before = data.fingerprint("counts", Path())
    assert data.fingerprint("whole", Path()) == before
    assert data.verify("counts", Path()) == [f"counts: read, SHA-256 of the examples {before}"]
    vars(theirs)["made"] = examples(labels=torch.tensor([0, 1, 2, 0, 1, 1]))
    assert data.fingerprint("counts", Path()) != before


def test_functions_of_its_own_come_first(theirs: types.ModuleType, tmp_path: Path) -> None:
    data.fetch("own", tmp_path)
    assert vars(theirs)["own"].fetched == [tmp_path]
    assert (data.verify("own", tmp_path), data.fingerprint("own", tmp_path)) == (["all good"], "own-1")
    with pytest.raises(DataError, match="missing: make it"):
        data.verify("own", tmp_path / "gone")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (examples(images=torch.zeros(6, 1, 2, 4)), r"train: images are torch\.float32 \[6, 1, 2, 4\] on"),
        (examples(images=torch.zeros(6, 8, dtype=torch.uint8)), r"train: images are torch\.uint8 \[6, 8\] on cpu, not"),
        (examples(images=[1, 2]), r"train: images are \[1, 2\], not torch\.uint8 \[n, c, h, w\] on the CPU"),
        (examples(labels=torch.zeros(6)), r"train: labels are torch\.float32 \[6\] on cpu, not torch\.int64"),
        (examples(labels=torch.arange(5)), r"train: there are 6 images and 5 labels"),
        (examples(labels=torch.tensor([0, 1, 2, 3, 0, 1])), r"train: labels lie in 0 to 3, not in 0 to 2"),
        (examples(labels=torch.tensor([0, 1, 2, -1, 0, 1])), r"train: labels lie in -1 to 2, not in 0 to 2"),
        (examples(classes=1), r"classes is 1, not a number of 2 or more"),
        (examples(classes="3"), r"classes is '3', not a number"),
        (
            examples(test=Split(torch.zeros(1, 1, 4, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))),
            r"images are \[1, 2, 4\] in training and \[1, 4, 2\] in test",
        ),
        (
            examples(test=Split(torch.zeros(0, 1, 2, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))),
            r"test: there are 0 images and 0 labels",
        ),
        ("a text", r"read\(\) returned 'a text', not Examples"),
    ],
)  # fmt: skip
def test_examples_that_training_cannot_use_are_refused_by_name(
    made: Any, message: str, theirs: types.ModuleType
) -> None:
    vars(theirs)["made"] = made
    with pytest.raises(ValueError, match=f"data set 'counts'.*{message}") as caught:
        load()
    assert not isinstance(caught.value, SpecError)  # it fails the cell


@pytest.mark.usefixtures("theirs")
def test_what_cannot_read_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"data set 'five' is int, without a function read\(\)"):
        load("five")
    with pytest.raises(ValueError, match=r"data set 'mnist' is benchmark\.data\.mnist already"):
        data.register("mnist", "their_data:read")


FILE = """
from benchmark import data
from benchmark.spec import SpecError

data.register("breaks", f"{__name__}:read")
def read(spec, data_dir):
    \"\"\"Breaks.\"\"\"
    raise RuntimeError("no such luck")
def suite():
    return []
"""


def test_the_command_line_lists_and_checks_what_a_file_registers(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    listed = bench("list", "data", "--suite", tmp_path / "mine.py", "--json")
    assert (listed.json["breaks"], "mnist" in listed.json) == ("Breaks.", True)
    for verb in ("verify", "fetch"):
        failed = bench("data", verb, "breaks", "--suite", tmp_path / "mine.py", "--data-dir", tmp_path)
        assert (failed.code, failed.error) == (3, "error: data set 'breaks': RuntimeError: no such luck")
