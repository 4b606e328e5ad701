"""Cells side by side in one batched program: what they compute, and what they may not notice of each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tape import Tape

import methods
from benchmark import data
from benchmark.program import Program, company, neighbours, programs_of, together
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.train import Steps, Training, digest, epoch_steps, take, train_step
from methods import Context, Phase, kernels
from methods.dst import DST
from methods.stacked import Stack

PIXELS = Data(name="synthetic", train_limit=136, test_limit=32, standardize=True)  # the last batch has 8 of 32
STEPS = {"schedule": "step", "milestones": (1,), "gamma": 0.1}
SGD = Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, batch_size=32, epochs=2, **STEPS)
ADAM = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=2, **STEPS)
NARROW = (4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 16)  # vgg16; 16 times a width of 4 fills the vectors of a reduction
SHAPES = {"vgg16": (3, 32, 32), "wrn-22-2": (3, 8, 8)}
pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(method: str, model: str, seed: int = 0, optimizer: Optimizer = SGD, **given: Any) -> RunSpec:
    wide = Model(name=model, widths=NARROW) if model == "vgg16" else Model(name=model)
    pixels = dataclasses.replace(PIXELS, shape=SHAPES.get(model, (1, 16, 16)))
    return cell(method, data=pixels, model=wide, optimizer=optimizer, seed=seed, **given)


def begun(specs: Sequence[RunSpec], data_dir: Path = Path()) -> list[Training]:
    dataset = data.load(specs[0].data, data_dir=data_dir, device=torch.device("cpu"))
    trainings = [Training(spec, dataset) for spec in specs]
    for training in trainings:
        training.model.train()
    return trainings


def in_a_program(trainings: Sequence[Training], width: int, steps: int) -> torch.Tensor:
    """Losses [steps, cells]."""
    program, batches = Program(trainings, width), [training.batches(0) for training in trainings]
    return torch.stack([program.step([next(of) for of in batches]) for _ in range(steps)])[:, : len(trainings)]


def one_by_one(trainings: Sequence[Training], steps: int) -> torch.Tensor:
    """Losses [steps, cells]."""
    columns = [
        [train_step(training, *batch) for batch, _ in zip(training.batches(0), range(steps), strict=False)]
        for training in trainings
    ]
    return torch.tensor(columns).T


def state(training: Training) -> str:
    return digest(training.model, training.optimizer.state_dict(), training.attached.state_dict())


def differences(some: Training, others: Training) -> torch.Tensor:
    """Of every entry of parameters, buffers and the optimizer's state: [entries]."""
    flat = []
    for live in (some, others):
        momentum = [value for of in live.optimizer.state.values() for value in of.values() if value is not None]
        flat.append(torch.cat([value.double().flatten() for value in [*live.model.state_dict().values(), *momentum]]))
    return (flat[0] - flat[1]).abs()


def epochs(training: Training) -> Steps[None]:
    """All steps of a training."""
    while training.epoch < training.epochs:
        yield from epoch_steps(training, lambda: None)


def clock(training: Training) -> list[Any]:
    names = ("epoch", "step", "steps_done", "examples", "epoch_examples")
    groups = [group["lr"] for group in training.optimizer.param_groups]
    return [*(getattr(training, name) for name in names), training.attached.state_dict()["step"], groups]


def assert_equal_but_for_rounding(alone: Sequence[Training], beside: Sequence[Training]) -> None:
    """Adam turns single entries by the sign of a tiny gradient: entries are compared by their mean."""
    for one, other in zip(alone, beside, strict=True):
        assert clock(one) == clock(other)
        assert differences(one, other).mean() < 1e-5
        assert torch.equal(one.kept_examples, other.kept_examples)
        assert torch.equal(one.attached.kept_counts(), other.attached.kept_counts())
        assert int(one.attached.threshold_resets()) == int(other.attached.threshold_resets())
        assert float(one.loss_sum) == pytest.approx(float(other.loss_sum), abs=1e-3)


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_cells_of_a_program_compute_what_they_would_alone(method: str, model: str, optimizer: Optimizer) -> None:
    """Both epochs: the second has another learning rate, and each ends with a smaller batch."""
    specs = [spec_of(method, model, seed, optimizer) for seed in range(3)]
    alone, beside = begun(specs), begun(specs)
    for training in alone:
        take(epochs(training))
    dict(together({str(at): epochs(training) for at, training in enumerate(beside)}, 4))
    assert clock(alone[0])[0] == 2
    assert_equal_but_for_rounding(alone, beside)


@pytest.mark.parametrize("model", ["vgg16", "wrn-22-2"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_batch_normalisation_is_of_each_cell_alone(method: str, model: str) -> None:
    """Of noise it doubles a rounding error every step: one is compared."""
    specs = [spec_of(method, model, seed) for seed in range(3)]
    alone, beside = begun(specs), begun(specs)
    torch.testing.assert_close(one_by_one(alone, 1), in_a_program(beside, 4, 1), rtol=0, atol=1e-5)
    for one, other in zip(alone, beside, strict=True):
        assert differences(one, other).mean() < 1e-6


@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_bfloat16_is_as_rough_as_for_cells_alone(method: str) -> None:
    """A bias is added before rounding alone, and after it in a program: they differ as both do from float32."""
    exact = [spec_of(method, "lenet-300-100", seed) for seed in range(2)]
    rough = [dataclasses.replace(spec, precision="bfloat16") for spec in exact]
    alone, beside, plain, plain_beside = begun(rough), begun(rough), begun(exact), begun(exact)
    for of in (alone, plain):
        one_by_one(of, 3)
    for of in (beside, plain_beside):
        in_a_program(of, 2, 3)
    for a, b, c, d in zip(alone, beside, plain, plain_beside, strict=True):
        roughness = differences(a, c).mean()
        assert differences(b, a).mean() < 2 * roughness
        assert 0.5 * roughness < differences(b, d).mean() < 2 * roughness


@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "vgg16"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_a_replayed_program_has_the_bits_of_one_that_is_not(
    method: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "path", lambda device_type: "eager")  # the only one that a tape can see into
    specs = [spec_of(method, model, seed) for seed in range(2)]
    plain, replayed = begun(specs), begun(specs)
    tapes: list[Tape] = []

    def recorder() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    replayed[0].gradient.recorder = recorder
    assert torch.equal(in_a_program(plain, 3, 5), in_a_program(replayed, 3, 5))
    assert list(map(state, plain)) == list(map(state, replayed))
    assert [tape.replays for tape in tapes] == [4], "the smaller batch that ends the epoch goes without"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_two_hundred_steps_on_mnist_are_those_of_cells_alone(method: str, data_dir: Path) -> None:
    mnist = Data(name="mnist", train_limit=12_800)
    of = cell(
        method,
        data=mnist,
        model=Model(name="lenet-300-100"),
        optimizer=Optimizer(lr=0.01, momentum=0.9, batch_size=64, epochs=1),
    )
    specs = [dataclasses.replace(of, seed=seed) for seed in range(2)]
    alone, beside = begun(specs, data_dir), begun(specs, data_dir)
    torch.testing.assert_close(one_by_one(alone, 200), in_a_program(beside, 2, 200), rtol=0, atol=1e-4)
    assert max(float(differences(*pair).max()) for pair in zip(alone, beside, strict=True)) < 1e-4


@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "vgg16"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_a_cells_bits_depend_on_the_width_and_not_on_its_company(method: str, model: str) -> None:
    specs = [spec_of(method, model, seed) for seed in range(3)]
    accompanied, lonely = begun(specs), begun(specs[2:])
    in_a_program(accompanied, 4, 2)
    in_a_program(lonely, 4, 2)
    assert state(accompanied[2]) == state(lonely[0])
    assert len({state(training) for training in accompanied}) == 3


@pytest.mark.parametrize("estimator", ["long_tailed", "straight_through"])
@pytest.mark.parametrize("threshold", ["vector", "scalar", "matrix"])
def test_thresholds_of_every_kind_are_reset_cell_by_cell(threshold: str, estimator: str) -> None:
    """At alpha 30 thresholds leap over all weights in a step, at 1e-3 they stay where they are."""
    given = {"threshold": threshold, "estimator": estimator}
    specs = [spec_of("dst", "lenet-300-100", alpha=alpha, **given) for alpha in (1e-3, 30.0)]
    alone, beside = begun(specs), begun(specs)
    one_by_one(alone, 3)
    in_a_program(beside, 2, 3)
    assert [int(t.attached.threshold_resets()) > 0 for t in alone] == [False, True]
    for one, other in zip(alone, beside, strict=True):
        assert differences(one, other).mean() < 1e-5
        assert int(one.attached.threshold_resets()) == int(other.attached.threshold_resets())
        assert torch.equal(one.attached.kept_counts(), other.attached.kept_counts())


def test_the_limit_of_a_reset_is_of_one_cells_weights() -> None:
    """1.5 % is kept of a layer: more than the limit, and less than that of two cells."""
    trainings = begun([spec_of("dst", "lenet-300-100", seed, alpha=0.0) for seed in range(2)])
    for training in trainings:
        named = dict(training.model.named_parameters())
        with torch.no_grad():
            named["fc1.weight_threshold"].fill_(named["fc1.weight"].abs().quantile(0.985))
    in_a_program(trainings, 2, 1)
    assert [int(training.attached.threshold_resets()) for training in trainings] == [0, 0]
    densities = [int(t.attached.kept_counts()[0]) / t.attached.masks()["fc1.weight"].numel() for t in trainings]
    assert all(0.01 < density < 0.02 for density in densities)


def test_cells_keep_company_with_those_that_differ_in_seed_and_alpha_alone() -> None:
    first = spec_of("dst", "lenet-300-100", alpha=1e-3)
    assert company(first) == company(spec_of("dst", "lenet-300-100", 7, alpha=2e-3)) is not None
    others = [
        spec_of("dense", "lenet-300-100"),
        spec_of("dst", "lenet-5-caffe", alpha=1e-3),
        spec_of("dst", "lenet-300-100", optimizer=dataclasses.replace(SGD, lr=0.1), alpha=1e-3),
        spec_of("dst", "lenet-300-100", alpha=1e-3, reset_density=None),
        dataclasses.replace(first, precision="bfloat16"),
        dataclasses.replace(first, data=dataclasses.replace(PIXELS, train_limit=64)),
        dataclasses.replace(first, step_records=1),
    ]
    assert company(first) not in map(company, others)
    static = [spec_of("static", "lenet-300-100", density=density) for density in (0.1, 0.2)]
    assert len(set(map(company, static))) == 2
    two_passes = dataclasses.replace(SGD, micro_batch_size=16)
    alone = [*(spec_of(name, "lenet-300-100") for name in ("set", "dsr", "sparse_momentum"))]
    alone += [spec_of("dst", "vgg16"), spec_of("dst", "lstm-a"), spec_of("dst", "lenet-300-100", optimizer=two_passes)]
    assert {company(spec) for spec in alone} == {None}


def test_cells_in_company_are_neighbours_in_a_job() -> None:
    suite = [spec_of(method, "lenet-300-100", seed) for seed in range(2) for method in ("dense", "set", "dst")]
    found = [(spec.method["name"], spec.seed) for spec in neighbours(suite)]
    assert found == [("dense", 0), ("dense", 1), ("set", 0), ("dst", 0), ("dst", 1), ("set", 1)]


class Gentle(DST):
    name = "gentle"

    def after_step(self, ctx: Context) -> None:
        """No reset."""


class Stubborn(DST):
    """Says that it can be stacked, and cannot."""

    name, stackable = "stubborn", ("alpha",)

    def after_backward(self, ctx: Context) -> bool:
        return True


class Phased(DST):
    name, stackable = "phased", ("alpha",)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return Phase("a", 1), Phase("b", total_steps - 1)


class Wordy(DST):
    name, stackable = "wordy", ("threshold",)


class Truly(DST):
    name, stackable = "truly", True


class Decaying(DST):
    name, stackable = "decaying", ("threshold_weight_decay",)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Gentle(), "gentle trains one model at a time: its class does not say `stackable`"),
        (Stubborn(), "stubborn cannot be stacked: it has an after_backward of its own"),
        (Phased(), "phased cannot be stacked: it has several phases"),
        (Wordy(), "wordy cannot be stacked: threshold is no float"),
        (Truly(), "truly: `stackable` is True: it must be a tuple of hyperparameters; valid: alpha, threshold"),
        (Decaying(), "decaying cannot be stacked: threshold_weight_decay is no number of a hook"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_method_that_cannot_be_stacked_is_refused_by_name(method: methods.Method, reason: str) -> None:
    """A subclass has to say for itself that it can."""
    attached = methods.attach(torch.nn.Linear(3, 2), method, total_steps=2, steps_per_epoch=1)
    with pytest.raises(ValueError, match=reason):
        Stack([attached], 1)


class Warming(DST):
    """Reads what belongs to one training."""

    name, stackable = "warming", ("alpha",)

    def penalty(self, ctx: Context) -> torch.Tensor:
        return ctx.step / ctx.total_steps * super().penalty(ctx)


def test_a_hook_that_reads_what_belongs_to_one_training_is_told_and_not_believed() -> None:
    attached = methods.attach(torch.nn.Linear(3, 2), Warming(), total_steps=2, steps_per_epoch=1)
    with pytest.raises(
        RuntimeError, match=r"a hook of warming reads ctx\.step, which belongs to one training; its cells can"
    ):
        Stack([attached], 1).penalty()


class Filling(DST):
    """Finds no room in its hook."""

    name, stackable = "filling", ("alpha",)

    def penalty(self, ctx: Context) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_hook_that_finds_no_room_is_not_called_wrong() -> None:
    attached = methods.attach(torch.nn.Linear(3, 2), Filling(), total_steps=2, steps_per_epoch=1)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        Stack([attached], 1).penalty()


def test_programs_are_told_in_a_line() -> None:
    suite = [spec_of(method, "lenet-300-100", seed) for seed in range(3) for method in ("dense", "set", "dst")]
    assert programs_of(suite, 3) == "side by side: 6 of 9 cells in 2 programs of 3; one at a time: lenet-300-100 set"
    assert programs_of(suite[1:2], 3) == "side by side: one at a time: lenet-300-100 set"
    assert "in 4 programs of 2; 2 places left empty" in programs_of(suite, 2)
