"""A plug-in that breaks fails its own cell, in one line that names it, the layer and the value."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import methods.registry
from benchmark import data, models, suites
from benchmark.run_folder.attempts import Observer
from benchmark.run_folder.files import read_json
from benchmark.spec import RunSpec
from benchmark.training import environment
from benchmark.training.cell import DriftError, execute
from benchmark.training.execution import Execution
from benchmark.training.publish import Outcome

FILE = '''
from dataclasses import dataclass

import torch
from torch import nn

import methods
from benchmark import data, models
from benchmark.data.tensors import Examples, Split
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell



@dataclass(kw_only=True)
class Bad(methods.Method):
    """Breaks as it is told."""

    name, version, reference, density_promise = "bad", 1, "none", "emergent"
    how: str = ""

    def enter_phase(self, ctx):
        if self.how == "shape at the start":
            ctx.masks.set({"1.weight": torch.ones(2, 2, dtype=torch.bool)})

    def after_step(self, ctx):
        if self.how == "list":
            ctx.masks.set({"3.weight": [[True]]})
        if self.how == "shape":
            ctx.masks.set({"1.weight": torch.ones(2, 2, dtype=torch.bool)})
        if self.how == "raises":
            raise KeyError("what was looked for")
        if self.how == "nan" and ctx.step == 2:  # the last step of an epoch
            ctx.weights["3.weight"].parameter.data[0, 1] = torch.nan
        if self.how == "penalty":
            self.factor = torch.nan

    def penalty(self, ctx):
        return ctx.weights["3.weight"].parameter.sum() * getattr(self, "factor", 0.0)


class Fickle(nn.Sequential):
    """Breaks in training."""

    def __init__(self, in_shape, classes, initialization=None):
        super().__init__(nn.Flatten(), nn.Linear(24, 4), nn.ReLU(), nn.Linear(4, classes))
        self.initialization = initialization

    def forward(self, images):
        if self.training and self.initialization == "raises":
            raise RuntimeError("no more")
        return super().forward(images[:, :, :2] if self.training and self.initialization == "torch" else images)


def read(spec, data_dir):
    """Noise."""
    if spec.test_limit == 13:
        raise OSError("unlucky")
    labels = torch.arange(40) % 4
    images = torch.randint(256, (40, 1, 4, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Examples(Split(images, labels), Split(images, labels), classes=4)


methods.register("bad", f"{__name__}:Bad")
models.register("fickle", f"{__name__}:Fickle")
data.register("noise", f"{__name__}:read")


def suite():
    return [one()]


def one(how="", initialization=None, test_limit=None, method="bad", **given):
    return cell(method, data=Data(name="noise", test_limit=test_limit), optimizer=Optimizer(batch_size=20, epochs=2),
                model=Model(name="fickle", initialization=initialization), **given, **({"how": how} if how else {}))
'''
SHAPE = 'if self.how == "shape":'
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Any]:
    """The file's function that makes a cell."""
    (tmp_path / "bad.py").write_text(FILE)
    with methods.registry.temporary(), models.plug_ins.temporary(), data.plug_ins.temporary():
        yield suites.load_file(tmp_path / "bad.py").one


def run(spec: RunSpec, out: Path, *, stop: bool = False, **options: Any) -> Outcome:
    execution = Execution(out=out / "runs", data_dir=out, checkpoint_seconds=0, **options)
    stopped = threading.Event()
    if stop:
        stopped.set()
    return execute(spec, execution, observer=Observer(), report=lambda _: None, stop=stopped)


def line(text: str) -> int:
    return FILE[: FILE.index(text)].count("\n") + 1


def test_an_error_of_torch_says_what_to_do(one: Any, tmp_path: Path) -> None:
    small = one(method="dense")
    single = dataclasses.replace(
        small, model=dataclasses.replace(small.model, name="mlp-300-100-bn"),
        data=dataclasses.replace(small.data, train_limit=21),
    )  # fmt: skip
    outcome = run(single, tmp_path)
    assert outcome.status == "failed"
    assert "Expected more than 1 value per channel" in str(outcome.error)
    assert "(the last batch or micro-batch has one example: change optimizer.batch_size or" in str(outcome.error)


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        (
            {"how": "shape at the start"},
            "failed",
            "fickle bad seed=0: mask of 1.weight is torch.bool [2, 2], not torch.bool [4, 24]",
        ),
        (
            {"how": "shape"},
            "failed",
            f"method 'bad', after_step (bad.py, line {line(SHAPE) + 1}): "
            "ValueError: mask of 1.weight is torch.bool [2, 2], not torch.bool [4, 24]",
        ),
        (
            {"how": "list"},
            "failed",
            f"method 'bad', after_step (bad.py, line {line('[[True]]')}): "
            "ValueError: mask of 3.weight is list, not torch.bool [4, 4]",
        ),
        (
            {"how": "raises"},
            "failed",
            f"method 'bad', after_step (bad.py, line {line('raise KeyError')}): KeyError: 'what was looked for'",
        ),
        (
            {"how": "nan"},
            "diverged",
            "the loss or a weight is not finite after epoch 1 of bad: 3.weight has 1 such values of 16, the first nan",
        ),
        (
            {"initialization": "raises"},
            "failed",
            f"model 'fickle', forward (bad.py, line {line('raise RuntimeError')}): RuntimeError: no more",
        ),
        (
            {"test_limit": 13},
            "failed",
            f"data set 'noise', read (bad.py, line {line('raise OSError')}): OSError: unlucky",
        ),
        (
            {"method": "static", "density": 0.001},
            "failed",
            "fickle static density=0.001 seed=0: static: density 0.001 keeps 0 weights, fewer than the 2 layers: "
            "3.weight would get 0.025 of its 16; give a density of at least 0.0134",
        ),
    ],
)
def test_the_cell_fails_and_its_line_names_what_broke(
    given: dict[str, Any], status: str, error: str, one: Any, tmp_path: Path
) -> None:
    assert run(one(**given), tmp_path) == Outcome(status, error)  # type: ignore[arg-type]
    assert run(one(), tmp_path).status == "done"


def test_an_error_inside_torch_is_the_models_whose_forward_pass_it_is(one: Any, tmp_path: Path) -> None:
    outcome = run(one(initialization="torch"), tmp_path)
    assert outcome.status == "failed"
    assert outcome.error.startswith("model 'fickle', forward (container.py, line ")
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in outcome.error


def test_a_penalty_that_is_not_finite_names_the_first_weights_that_it_spoils(one: Any, tmp_path: Path) -> None:
    outcome = run(one(how="penalty"), tmp_path)
    assert outcome.status == "diverged"
    assert (
        outcome.error
        == "the loss or a weight is not finite after epoch 1 of bad: 3.weight has 16 such values of 16, the first nan"
    )


def test_another_version_of_a_plug_in_is_drift(one: Any, tmp_path: Path) -> None:
    spec = one(method="static", density=0.5)
    assert run(spec, tmp_path, stop=True).status == "interrupted"
    before = read_json(tmp_path / "runs" / "cells" / spec.run_id / "environment.json")["plug_ins"]
    assert set(before) == {"model fickle", "data set noise"}
    assert all(text.startswith("bad.py, SHA-256 ") and len(text) == 80 for text in before.values())
    (tmp_path / "bad.py").write_text(FILE + "\n# changed\n")
    suites.load_file(tmp_path / "bad.py")
    with pytest.raises(DriftError, match=r"plug_ins: data set noise of bad\.py, SHA-256 .*; model fickle of bad.* -> "):
        run(spec, tmp_path)
    assert run(spec, tmp_path, accept_drift=True).status == "done"
    later = read_json(tmp_path / "runs" / "cells" / spec.run_id / "environment.json")
    assert later["plug_ins"] != before
    assert [text[:10] for text in later["drift"]] == ["plug_ins: "]


def test_another_version_of_a_package_is_drift_and_earlier_checkpoints_name_none() -> None:
    before = {"plug_ins": {"model theirs": "their-package 1.0, m.py, SHA-256 aa", "method m": "m.py, SHA-256 bb"}}
    now = {"plug_ins": {"model theirs": "their-package 2.0, m.py, SHA-256 aa", "method m": "m.py, SHA-256 bb"}}
    assert environment.drift(before, now) == [
        "plug_ins: method m of m.py, SHA-256 bb; model theirs of their-package 1.0, m.py, SHA-256 aa -> "
        "method m of m.py, SHA-256 bb; model theirs of their-package 2.0, m.py, SHA-256 aa"
    ]
    assert environment.drift(now, dict(reversed(now.items()))) == []
    assert environment.drift({"plug_ins": {}}, now) == [
        "plug_ins: none -> method m of m.py, SHA-256 bb; model theirs of their-package 2.0, m.py, SHA-256 aa"
    ]
    assert environment.drift({"torch": "2"}, now) == []


def test_a_cell_of_the_package_alone_records_no_plug_in(one: Any, tmp_path: Path) -> None:
    spec = one(method="static", density=0.5)
    own = dataclasses.replace(
        spec,
        data=dataclasses.replace(spec.data, name="synthetic", shape=(1, 8, 8), train_limit=40, test_limit=8),
        model=dataclasses.replace(spec.model, name="lenet-300-100"),
    )
    assert run(own, tmp_path).status == "done"
    assert read_json(tmp_path / "runs" / "cells" / own.run_id / "environment.json")["plug_ins"] == {}
