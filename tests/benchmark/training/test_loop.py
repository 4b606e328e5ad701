"""The training loop: what it promises to every method, and what it may not do in a step."""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import methods
from benchmark import data
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError, from_json
from benchmark.suites import cell
from benchmark.training import records
from benchmark.training.loop import Training, digest, learning_rate, train_epoch, train_step

PIXELS = Data(name="synthetic", train_limit=200, test_limit=50)
CPU = torch.device("cpu")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")


def spec(method: str, *, model: str = "lenet-300-100", step_records: int | None = None, **changes: Any) -> RunSpec:
    optimizer = Optimizer(**{"lr": 0.05, "momentum": 0.9, "batch_size": 32, "epochs": 2, **changes})
    return cell(method, data=PIXELS, model=Model(name=model), optimizer=optimizer, step_records=step_records)


def training(of: RunSpec) -> Training:
    return Training(of, data.load(of.data, data_dir=Path(), device=CPU))


def run(of: RunSpec, epochs: int = 1) -> tuple[Training, list[dict[str, Any]]]:
    live, found = training(of), []
    for _ in range(epochs):
        train_epoch(live, lambda: None)
        found += [*records.step_records(live), records.epoch_record(live)]
    return live, found


class Watch(TorchDispatchMode):
    """Collects the operators that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", methods.available())
def test_a_training_that_diverges_is_found_whatever_the_method(method: str) -> None:
    """An error of the method would make the cell `failed`, and --retry-failed would train it again."""
    _, found = run(spec(method, lr=1e30), epochs=1)
    assert found[-1]["diverged"]


MOVE_MASKS_IN_THE_FIRST_EPOCH = {"acdc", "deep_r", "gradual"}  # exact counts wait for the device


@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "lstm-a"])
@pytest.mark.parametrize("method", sorted(set(methods.available()) - MOVE_MASKS_IN_THE_FIRST_EPOCH))
def test_a_training_step_never_waits_for_the_device(method: str, model: str) -> None:
    live = training(dataclasses.replace(spec(method, model=model), step_records=1))
    with Watch() as watch:
        batches = iter(live.batches(0))
        next(batches)
    assert watch.seen == []
    with Watch() as watch:
        steps: list[int] = []

        def stop_before_the_epoch_ends() -> None:
            steps.append(1)
            if len(steps) == live.steps_per_epoch - 1:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            train_epoch(live, stop_before_the_epoch_ends)
    assert watch.seen == []


@pytest.mark.parametrize(
    "changes",
    [{"name": "adam", "momentum": 0.0}, {"micro_batch_size": 8}, {"precision": "bfloat16"}, {"augment": "crop-flip"}],
    ids=str,
)
def test_no_choice_of_the_spec_makes_a_step_wait(changes: dict[str, Any]) -> None:
    precision, augment = changes.pop("precision", "float32"), changes.pop("augment", None)
    of = dataclasses.replace(spec("dst", model="lenet-5-caffe", **changes), precision=precision)
    live = training(dataclasses.replace(of, data=dataclasses.replace(PIXELS, augment=augment, standardize=True)))
    with Watch() as watch:
        for inputs, labels in live.batches(0):
            train_step(live, inputs, labels)
            live.step += 1
    assert live.step == live.steps_per_epoch
    assert watch.seen == []


def test_the_watch_sees_an_item_call() -> None:
    with Watch() as watch:
        torch.ones(3).sum().item()
    assert watch.seen == ["_local_scalar_dense"]


def test_all_methods_of_a_seed_start_from_the_same_weights_and_see_the_same_batches() -> None:
    dense, sparse = training(spec("dense")), training(spec("dst"))
    for name, value in dense.model.state_dict().items():
        assert torch.equal(value, sparse.model.state_dict()[name])
    for (x, y), (x2, y2) in zip(dense.batches(0), sparse.batches(0), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_another_seed_gives_other_weights_and_another_order() -> None:
    one, other = training(spec("dense")), training(dataclasses.replace(spec("dense"), seed=1))
    assert not torch.equal(one.model.state_dict()["fc1.weight"], other.model.state_dict()["fc1.weight"])
    assert not torch.equal(next(iter(one.batches(0)))[1], next(iter(other.batches(0)))[1])


def test_a_resume_in_mid_epoch_ends_in_the_same_bits() -> None:
    whole, rows = run(spec("dst", step_records=1), epochs=2)
    first, states = training(spec("dst", step_records=1)), []

    def save() -> None:
        if first.step == 3:
            states.append(first.state_dict())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_epoch(first, save)
    second = training(spec("dst", step_records=1))
    second.load_state_dict(states[0])
    resumed = []
    for _ in range(2):
        train_epoch(second, lambda: None)
        resumed += [*records.step_records(second), records.epoch_record(second)]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert [timeless(row) for row in resumed] == [timeless(row) for row in rows]


def test_cpu_seconds_of_steps_leave_out_waits_and_survive_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: Any) -> torch.Tensor:
        time.sleep(0.02)
        return torch.tensor(1.0)

    with monkeypatch.context() as patched:
        patched.setattr("benchmark.training.loop.train_step", waits)
        waited = training(spec("dense"))
        train_epoch(waited, lambda: None)
    assert waited.train_seconds > 0.1 > 0.05 > waited.train_cpu_seconds > 0
    first, rows = run(spec("dense"))
    assert rows[0]["train_cpu_seconds"] == pytest.approx(first.train_cpu_seconds, abs=1e-3)
    second = training(spec("dense"))
    second.load_state_dict(first.state_dict())
    assert second.train_cpu_seconds == first.train_cpu_seconds
    train_epoch(second, lambda: None)
    assert second.train_cpu_seconds > first.train_cpu_seconds


def test_cpu_seconds_are_unknown_after_a_checkpoint_that_has_none() -> None:
    first, _ = run(spec("dense"))
    state = {name: value for name, value in first.state_dict().items() if name != "train_cpu_seconds"}
    second = training(spec("dense"))
    second.load_state_dict(state)
    train_epoch(second, lambda: None)
    assert records.epoch_record(second)["train_cpu_seconds"] is None


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "seconds" not in name and "time" not in name}


def test_step_records_add_up_to_the_masks() -> None:
    live, rows = run(spec("dst", step_records=1, lr=0.5))
    steps = [row for row in rows if "train_seconds" not in row]
    assert [row["step"] for row in steps] == list(range(1, live.steps_per_epoch + 1))
    for name, mask in live.attached.masks().items():
        kept = mask.numel()
        for row in steps:
            kept += row[f"recovered/{name}"] - row[f"masked/{name}"]
            assert row[f"density/{name}"] == kept / mask.numel()
        assert kept == int(mask.sum())
    assert sum(row["masked/fc1.weight"] for row in steps) > 0


def test_without_step_records_only_epochs_are_recorded() -> None:
    _, rows = run(spec("dst"))
    assert len(rows) == 1


def test_the_last_smaller_batch_weighs_as_many_examples_as_it_has() -> None:
    live = training(spec("dense", lr=0.0))
    train_epoch(live, lambda: None)
    whole = torch.nn.functional.cross_entropy(live.model(live.data.train.images / 255), live.data.train.labels)
    assert float(live.loss_sum) / len(live.data.train) == pytest.approx(whole.item(), rel=1e-5)


def test_step_schedule_multiplies_by_gamma_at_each_milestone() -> None:
    steps = Optimizer(lr=0.1, schedule="step", milestones=(80, 120), gamma=0.1)
    assert [learning_rate(steps, epoch) for epoch in (0, 79, 80, 119, 120)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3]
    )


@pytest.mark.parametrize(
    ("schedule_of", "decay", "rates"),
    [
        (None, 0.0, {"weights": 0.005, "thresholds": 0.005}),
        ("weights", 0.0, {"weights": 0.005, "thresholds": 0.05}),
        ("thresholds", 0.0, {"weights": 0.05, "thresholds": 0.005}),
        ("thresholds", 0.5, {"weights": 0.05, "thresholds": 0.005}),
    ],
)
def test_the_schedule_is_of_all_parameters_or_of_weights_or_thresholds_only(
    schedule_of: str | None, decay: float, rates: dict[str, float]
) -> None:
    """Also for biases, where thresholds share the weights' group and where they do not, and after a resume."""
    of = spec("dst", schedule="step", milestones=(1,), schedule_of=schedule_of)
    of = dataclasses.replace(of, method={**of.method, "threshold_weight_decay": decay})
    live, resumed = training(of), training(of)
    for _ in range(2):
        train_epoch(live, lambda: None)
    resumed.load_state_dict(copy.deepcopy(live.state_dict()))
    for each in (live, resumed):
        thresholds = set(map(id, each.attached.context.thresholds.parameters().values()))
        rate_of = {id(p): group["lr"] for group in each.optimizer.param_groups for p in group["params"]}
        assert set(rate_of) == thresholds | set(map(id, each.model.parameters()))
        assert rate_of == pytest.approx({p: rates["thresholds" if p in thresholds else "weights"] for p in rate_of})


def test_a_schedule_of_thresholds_needs_a_method_that_has_them() -> None:
    with pytest.raises(SpecError, match=r"schedule_of is set, but this method has no thresholds"):
        training(spec("dense", schedule="step", milestones=(1,), schedule_of="thresholds"))


def test_held_out_examples_and_a_limit_of_as_many_fewer_are_one_training() -> None:
    """Suite `validation` relies on it: what a cell is evaluated on changes nothing in its training."""
    found = []
    for part in (Data(name="digits", validation=100), Data(name="digits", train_limit=1337)):
        live, rows = run(dataclasses.replace(spec("dst"), data=part))
        found.append((digest(live.model, live.attached.state_dict()), rows[-1]["density"], rows[-1]["train_loss"]))
        assert rows[-1]["test_accuracy"] > 0
    assert found[0] == found[1]


def test_an_unknown_optimizer_is_named_with_the_valid_ones() -> None:
    with pytest.raises(SpecError, match=r"adamw.*did you mean 'adam'"):
        training(spec("dense", name="adamw", momentum=0.0))


def test_a_method_of_another_version_is_refused() -> None:
    old = spec("dst")
    with pytest.raises(SpecError, match="version 0"):
        training(dataclasses.replace(old, method={**old.method, "version": 0}))


def test_thresholds_get_their_own_weight_decay() -> None:
    of = spec("dst", weight_decay=0.01)
    live = training(dataclasses.replace(of, method={**of.method, "threshold_weight_decay": 0.5}))
    assert [group["weight_decay"] for group in live.optimizer.param_groups] == [0.01, 0.5]


def test_a_loss_that_is_not_finite_is_recorded_as_diverged() -> None:
    live, rows = run(spec("dense", lr=1e30))
    assert rows[-1]["diverged"]
    assert rows[-1]["train_loss"] is None
    assert "test_accuracy" not in rows[-1]
    assert live.epoch == 1


class TwoPhases(methods.Method):
    """Ten steps of an epoch of seven, then three more at a fixed rate."""

    name = "two_phases"
    version = 1
    reference = "none"
    density_promise = "dense"

    def phases(self, total_steps: int) -> tuple[methods.Phase, ...]:
        return (methods.Phase("first", 10), methods.Phase("second", 3, lr=1))


def test_a_training_ends_with_its_last_phase_in_the_middle_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[TwoPhases.__module__])
    with methods.registry.temporary():
        methods.register("two_phases", f"{__name__}:TwoPhases")
        live, rows = run(spec("two_phases", step_records=2), epochs=2)
    assert (live.epochs, live.epoch, live.steps_done, live.attached.total_steps) == (2, 2, 13, 13)
    assert live.examples == 7 * 32 - 24 + 6 * 32  # 200 examples, then six batches of 32
    assert [row["step"] for row in rows if "train_seconds" not in row] == list(range(1, 14))
    assert live.optimizer.param_groups[0]["lr"] == 1
    mean = sum(row["train_loss"] for row in rows if row["epoch"] == 2 and "train_seconds" not in row) / 6
    assert rows[-1]["train_loss"] == pytest.approx(mean)


def test_the_recorded_learning_rate_is_that_of_the_epochs_steps() -> None:
    """Also in the epoch after whose last step a phase brings a new optimizer, and where weights have no schedule."""
    falls = {"schedule": "step", "milestones": (1,)}
    of = {name: spec(name, **falls) for name in ("prune_finetune", "dst")}
    of["dst"] = dataclasses.replace(
        of["dst"], optimizer=dataclasses.replace(of["dst"].optimizer, schedule_of="thresholds")
    )
    for one in of.values():
        live, rows = run(one, epochs=2)
        assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.005]), one.label
        resumed = training(one)
        resumed.load_state_dict(copy.deepcopy(live.state_dict()))
        assert records.epoch_record(resumed)["lr"] == rows[-1]["lr"]


def test_weights_that_the_last_step_made_infinite_are_recorded_as_diverged() -> None:
    live = training(spec("dense"))
    train_epoch(live, lambda: None)
    with torch.no_grad():
        next(live.model.parameters())[0] = torch.inf
    assert records.epoch_record(live)["diverged"]


def test_a_density_that_leaves_a_layer_without_weights_is_the_users_mistake() -> None:
    with pytest.raises(SpecError, match=r"fewer than the 3 layers"):
        training(dataclasses.replace(spec("static"), density=1e-6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nesterov": True, "momentum": 0.0}, "needs optimizer.momentum"),
        ({"name": "adam"}, "of sgd, not adam"),
        ({"schedule": "steps"}, "did you mean 'step'"),
        ({"milestones": (0,)}, "it must hold epochs"),
        ({"gamma": 0.0}, "optimizer.gamma is 0"),
        ({"milestones": (80,)}, "constant, so optimizer.milestones would change .* --set optimizer.milestones=None$"),
        ({"gamma": 0.5, "milestones": (80,)}, "so optimizer.milestones and optimizer.gamma would change nothing"),
        ({"schedule": "step", "milestones": (80, 80)}, "names an epoch twice"),
        ({"schedule_of": "biases"}, "thresholds, weights"),
        ({"schedule_of": "weights"}, "optimizer.schedule is constant"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused_before_any_training(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec("dense", **change)


def test_a_stored_cell_with_values_that_change_nothing_can_still_be_read() -> None:
    of = spec("dense")
    stored = dataclasses.replace(of, optimizer=dataclasses.replace(of.optimizer, milestones=(5, 5), gamma=0.5))
    assert from_json(stored.canonical_json) == dataclasses.replace(stored, protocol=(), departs=())


def test_the_digest_of_a_state_is_as_before_what_was_attached_was_saved() -> None:
    live = training(spec("static"))
    state = live.attached.state_dict()
    earlier = ("method", "version", "hyperparameters", "step", "phase", "generator", "masks", "thresholds", "own")
    assert digest(live.model, state) == digest(live.model, {key: state[key] for key in earlier})
    assert digest(live.model, state) != digest(live.model, state | {"step": 1})
