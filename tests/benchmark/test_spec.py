"""A cell's identity: stable, complete, and not touched by what does not decide its bits."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError, fields, from_dict, from_json, replace_fields


def make(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "data": Data(name="mnist", train_limit=600),
        "model": Model(name="lenet-300-100"),
        "optimizer": Optimizer(lr=0.01, momentum=0.9, epochs=20, schedule="step", milestones=(10, 15), gamma=0.1),
        "method": {"name": "dst", "version": 1, "alpha": 5e-4, "threshold": "vector", "reset_density": None},
        "seed": 3,
    }
    return RunSpec(**values | changes)


CANONICAL = (
    '{"data":{"name":"mnist","standardize":false,"train_limit":600},'
    '"method":{"alpha":0.0005,"name":"dst","reset_density":null,"threshold":"vector","version":1},'
    '"model":{"name":"lenet-300-100"},'
    '"optimizer":{"batch_size":64,"epochs":20,"gamma":0.1,"lr":0.01,"milestones":[10,15],"momentum":0.9,'
    '"name":"sgd","nesterov":false,"schedule":"step","weight_decay":0.0},'
    '"precision":"float32","seed":3}'
)


def test_canonical_json_and_run_id_are_what_they_always_were() -> None:
    """Run folders of earlier releases are found by these: a change here orphans them all."""
    assert make().canonical_json == CANONICAL
    assert make().run_id == "63246b8dfc3b"


def test_the_run_id_does_not_depend_on_the_process() -> None:
    code = f"import json; from benchmark.spec import from_dict; print(from_dict(json.loads({CANONICAL!r})).run_id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == make().run_id + "\n"


def test_memberships_are_no_part_of_the_identity() -> None:
    other = make(protocol=("paper",), departs=("seed=3 (suite: 0)",))
    assert (other.run_id, other) == (make().run_id, make())


def test_a_field_that_is_none_leaves_the_identity_as_it_was() -> None:
    """So a field added later, None by default, renames no cell."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class LaterModel(Model):
        width: int | None = None

    today, later = Model(name="lenet-300-100"), LaterModel(name="lenet-300-100")
    assert make(model=later).canonical_json == make(model=today).canonical_json == CANONICAL
    assert make(density=None, step_records=None).canonical_json == CANONICAL


def test_a_hyperparameter_that_is_none_is_a_value_of_its_own() -> None:
    """dst with reset_density None never resets: another training than with the default."""
    assert from_dict(json.loads(CANONICAL)).method["reset_density"] is None
    assert (
        make(method={"name": "dst", "version": 1}).run_id
        != make(method={"name": "dst", "version": 1, "reset_density": None}).run_id
    )


CHANGES = {
    "data.name": "digits",
    "data.train_limit": 601,
    "data.standardize": True,
    "data.augment": "crop-flip",
    "model.name": "lenet-5-caffe",
    "model.hidden_state": "carried",
    "model.widths": (18, 24),
    "optimizer.lr": 0.02,
    "optimizer.nesterov": True,
    "optimizer.milestones": (10, 16),
    "method.alpha": 1e-3,
    "method.version": 2,
    "density": 0.5,
    "seed": 4,
    "precision": "bfloat16",
    "step_records": 1,
}


def test_every_field_that_decides_bits_is_in_the_identity() -> None:
    run_ids = {replace_fields(make(), {name: value}).run_id for name, value in CHANGES.items()}
    assert len({make().run_id, *run_ids}) == len(CHANGES) + 1


def test_whole_numbers_and_floats_of_one_value_are_one_cell() -> None:
    assert make(optimizer=Optimizer(lr=1)).run_id == make(optimizer=Optimizer(lr=1.0)).run_id
    assert make(density=1).run_id == make(density=1.0).run_id


def test_a_spec_survives_its_json() -> None:
    spec = make(density=0.25, protocol=("paper",), departs=("x",))
    again = from_dict(json.loads(spec.canonical_json), protocol=spec.protocol, departs=spec.departs)
    assert again == spec
    assert dataclasses.asdict(again) == dataclasses.asdict(spec)
    assert again.run_id == spec.run_id


def test_fields_name_everything_that_can_be_set_or_filtered() -> None:
    found = fields(make())
    assert found["optimizer.milestones"] == (10, 15)
    assert found["method.alpha"] == 5e-4
    assert found["data.augment"] is None
    assert found["density"] is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer.epohs", 1, r"unknown optimizer field 'epohs': did you mean 'epochs'\? valid: batch_size, epochs"),
        ("optimiser.epochs", 1, r"unknown field 'optimiser': did you mean 'optimizer'\?"),
        ("optimizer", 1, "cannot set optimizer: give a plain field"),
        ("seed.x", 1, "cannot set seed.x"),
        ("optimizer.epochs", "five", "optimizer.epochs is 'five': it must be int"),
        ("optimizer.epochs", 1.5, "optimizer.epochs is 1.5: it must be int"),
        ("optimizer.epochs", True, "optimizer.epochs is True: it must be int"),
        ("optimizer.epochs", 0, r"optimizer.epochs is 0: it must lie in \[1, inf\)"),
        ("optimizer.nesterov", 1, "optimizer.nesterov is 1: it must be bool"),
        ("optimizer.lr", float("nan"), "optimizer.lr is nan: it must be finite"),
        ("optimizer.gamma", float("inf"), "optimizer.gamma is inf: it must be finite"),
        ("method.alpha", float("-inf"), "method.alpha is -inf: it must be finite"),
        ("method.alpha", "auto", "method.alpha is 'auto': it must be float or none"),
        ("density", 0.0, r"density is 0.0: it must lie in \(0, 1\]"),
        ("density", 1.5, r"density is 1.5: it must lie in \(0, 1\]"),
        ("seed", -1, r"seed is -1: it must lie in \[0, "),
        ("seed", 2**53, r"seed is 9007199254740992: it must lie in \[0, 9007199254740991\]"),
        ("step_records.x", 1, "cannot set step_records.x: give a plain field"),
        ("precision", "float61", r"unknown precision 'float61': .*valid: bfloat16, float32, tf32"),
        ("data.name", None, "data.name is None: it must be str"),
    ],
)
def test_bad_fields_and_values_are_one_clear_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        replace_fields(make(), {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["data", "model", "method"])
@pytest.mark.parametrize("name", ["../x", "/abs/x", ".", "..", "", "a b", "a\n", "x;y", "é", "a/b", "a\\b", "n" * 101])
def test_names_that_are_no_names_of_files_are_one_clear_line(part: str, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        replace_fields(make(), {f"{part}.name": name})
    assert str(caught.value).startswith(f"{part}.name is {name!r}"[:100])
    assert str(caught.value).endswith(": it must be 1 to 100 of the characters A-Z a-z 0-9 . _ -")
    assert "\n" not in str(caught.value)


def test_a_spec_from_elsewhere_is_written_as_it_is_written_here() -> None:
    """Otherwise one cell could stand in a table twice, under two run ids."""
    assert from_json(CANONICAL) == make()
    for text in (json.dumps(json.loads(CANONICAL), sort_keys=True), CANONICAL[:-1] + ',"seed":3}', CANONICAL + "\n"):
        with pytest.raises(SpecError, match=r"not the canonical JSON of its cell"):
            from_json(text)


def test_a_method_without_a_name_is_refused() -> None:
    with pytest.raises(SpecError, match=r"method\.name is missing"):
        make(method={"alpha": 1.0})


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (
            lambda: Optimizer(epoch=3),
            r"^unknown optimizer field 'epoch': did you mean 'epochs'\? valid: batch_size, ep",
        ),
        (lambda: Model(nmae="lenet-300-100"), "^unknown model field 'nmae': did you mean 'name'"),
        (lambda: dataclasses.replace(make(), sed=1), "^unknown field 'sed': did you mean 'seed'.*valid: data, density"),
        (lambda: Data("digits"), "^Data takes its fields by name: name, train_limit"),
        (lambda: Data(), r"^data\.name is missing"),
        (lambda: RunSpec(data=Data(name="digits")), "^model is missing"),
        (lambda: make(data="digits"), "^data is 'digits': it must be Data"),
        (lambda: make(data=torch.ones(2)), r"^data is tensor\(\[1., 1.\]\): it must be Data"),
        (
            lambda: make(method={"name": "mine", "layers": {1}}),
            r"^method\.layers is \{1\}: it must be a number, a text",
        ),
    ],
)
def test_wrong_arguments_of_a_constructor_are_one_line_with_the_known_fields(make_it: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        make_it()
    assert "\n" not in str(caught.value)


def test_scalars_of_numpy_are_plain_values_with_the_same_run_id() -> None:
    def spec(number: Any, count: Any, truth: Any) -> RunSpec:
        return RunSpec(
            data=Data(name="synthetic", shape=(count(1), count(8), count(8)), standardize=truth(True)),
            model=Model(name="lenet-300-100", widths=(count(4), count(5))),
            optimizer=Optimizer(lr=number(0.25), batch_size=count(16), epochs=count(2), nesterov=truth(False)),
            method={"name": "set", "version": 1, "drop_fraction": number(0.5), "update_every": count(3)},
            density=number(0.125),
            seed=count(7),
        )

    plain = spec(float, int, bool)
    for number in (np.float32, np.float64, np.array):
        found = spec(number, np.int64, np.bool_)
        assert (found, found.run_id, found.canonical_json) == (plain, plain.run_id, plain.canonical_json)
        assert [type(found.seed), type(found.density), type(found.optimizer.epochs)] == [int, float, int]
    with pytest.raises(SpecError, match=r"seed is 1.5: it must be int"):
        dataclasses.replace(plain, seed=np.float32(1.5))
