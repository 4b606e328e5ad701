"""Steps replayed as a graph: the bits of a training without. The recorder here is `tape.Tape`, as there is no GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from grids import Bench
from one_cell import Runner, make_spec
from tape import Tape
from torch import Tensor, nn

import methods
from benchmark import data, environment
from benchmark.engine import Engine
from benchmark.gradient import Gradient
from benchmark.graphs import StepGraph, give_gradients, without_trace
from benchmark.launch.base import Work
from benchmark.launch.local import LocalLauncher
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError
from benchmark.suites import cell
from benchmark.train import Training, digest, train_epoch
from methods import Context, Method, Phase, kernels

CARRIED = Model(name="lstm-a", hidden_state="carried")
SMALL_VGG = Model(name="vgg16", widths=(4,) * 13 + (8,))
MLP = Model(name="lenet-300-100", widths=(20, 10))
CPU = torch.device("cpu")
EPOCHS, WHOLE_BATCHES = 3, 4  # and a smaller one in each epoch


class Phased(Method):
    """Has another penalty in each of three phases, and thresholds, with an optimizer of their own, from the second."""

    name, version, reference, density_promise = "phased", 1, "none", "emergent"
    capturable = True

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return Phase("a", 3), Phase("b", 4, new_optimizer=True), Phase("c", total_steps - 7)

    def enter_phase(self, ctx: Context) -> None:
        self.alpha = {"a": 0.5, "b": 1e-3, "c": 1e-2}[ctx.phase.name]
        if ctx.phase.name == "b":
            ctx.thresholds.attach(shape="vector", estimator="long_tailed")

    def penalty(self, ctx: Context) -> Tensor:
        if ctx.phase.name == "a":
            return self.alpha * sum(weight.parameter.square().mean() for weight in ctx.weights.values())
        return self.alpha * ctx.thresholds.regularization()


class Clocked(Method):
    """What no graph can replay: a penalty that depends on the step."""

    name, version, reference, density_promise = "clocked", 1, "none", "dense"

    def penalty(self, ctx: Context) -> Tensor:
        return 1e-2 * ctx.step * next(iter(ctx.weights.values())).parameter.square().sum()


@pytest.fixture(autouse=True)
def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape cannot see into the C++ operators; a GPU computes with the plain ones too, compiled."""
    monkeypatch.setattr(kernels, "path", lambda device_type: "eager")
    monkeypatch.setattr(methods.registry, "_paths", dict(methods.registry._paths))
    methods.register("phased", f"{__name__}:Phased")
    methods.register("clocked", f"{__name__}:Clocked")


def spec(method: str, model: Model = MLP, **changes: object) -> RunSpec:
    shape = {"vgg16": (3, 32, 32), "wrn-22-2": (3, 8, 8)}.get(model.name)
    pixels = Data(name="synthetic", shape=shape, train_limit=8 * WHOLE_BATCHES + 3, test_limit=8)
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=8, epochs=EPOCHS)
    of = cell(method, data=pixels, model=model, optimizer=optimizer)
    return dataclasses.replace(of, **changes)  # type: ignore[arg-type]


def training(of: RunSpec) -> Training:
    live = Training(of, data.load(of.data, data_dir=Path(), device=CPU))
    if of.model.name == "vgg16":  # no model of ours has dropout
        live.model.fc1_relu = nn.Sequential(nn.ReLU(), nn.Dropout())
    return live


def recorded(of: RunSpec) -> tuple[Training, list[Tape]]:
    """A training whose passes are replayed, and the tapes that it makes."""
    live, tapes = training(of), list[Tape]()

    def recorder() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    live.gradient.recorder = recorder
    return live, tapes


def state(live: Training) -> str:
    others = (live.optimizer.state_dict(), live.attached.state_dict(), {"loss": live.loss_sum})
    return digest(live.model, *others, {"random": torch.get_rng_state()})


def trained(live: Training, until: Callable[[Training], bool] = lambda live: False) -> str:
    def stop() -> None:
        if until(live):
            raise KeyboardInterrupt

    try:
        while live.epoch < live.epochs:
            train_epoch(live, stop)
    except KeyboardInterrupt:
        pass
    return state(live)


@pytest.mark.parametrize(
    ("method", "model"),
    [("dense", SMALL_VGG), ("dst", SMALL_VGG), ("dst", Model(name="wrn-22-2")), ("dense", CARRIED)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_warm_up_leaves_no_trace(method: str, model: Model) -> None:
    live = training(spec(method, model))
    live.model.train()
    before, (inputs, labels) = state(live), next(iter(live.batches(0)))
    with without_trace(live.model):
        for _ in range(2):
            live.gradient.backward(inputs, labels, step=0, examples=len(labels))
        assert state(live) != before, "there is something to undo"
        assert any(parameter.grad is not None for parameter in live.model.parameters())
    assert state(live) == before
    assert all(parameter.grad is None for parameter in live.model.parameters())


def test_what_a_warm_up_finds_is_there_again_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    mean, gradients = torch.full((2,), 3.0), [torch.ones_like(parameter) for parameter in model.parameters()]
    give_gradients(model.parameters(), gradients)
    model[1].running_mean.copy_(mean)  # type: ignore[operator,union-attr]

    def fail() -> None:
        model(torch.rand(4, 2)).sum().backward()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), without_trace(model):
        fail()
    assert torch.equal(model[1].running_mean, mean)  # type: ignore[arg-type]
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("method", "model"),
    [*((method, MLP) for method in methods.available()), ("dst", SMALL_VGG), ("dsr", SMALL_VGG), ("dst", CARRIED)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_replayed_training_has_the_bits_of_one_that_is_not(method: str, model: Model, precision: str) -> None:
    of = spec(method, model, precision=precision)
    assert Engine(of, "cuda", cuda_graphs=True).cuda_graph, "every method of ours is captured"
    whole = trained(training(of))
    live, tapes = recorded(of)
    assert trained(live) == whole
    assert [tape.replays for tape in tapes] == [EPOCHS * WHOLE_BATCHES]


def test_a_replayed_training_that_is_resumed_records_anew_and_ends_in_the_same_bits() -> None:
    of = spec("dst", SMALL_VGG)
    whole = trained(training(of))
    second, tapes = recorded(of)
    trained(second, until=lambda live: live.steps_done == 1)  # what it recorded is of another state
    first, _ = recorded(of)
    trained(first, until=lambda live: live.steps_done == 7)
    second.load_state_dict(first.state_dict())
    assert trained(second) == whole
    assert [tape.replays for tape in tapes] == [1, EPOCHS * WHOLE_BATCHES - 6]


def test_a_new_phase_is_recorded_anew() -> None:
    of = spec("phased")
    whole = trained(training(of))
    live, tapes = recorded(of)
    assert trained(live) == whole
    assert [tape.replays for tape in tapes] == [3, 3, 6]


def test_a_penalty_that_counts_steps_is_not_capturable_and_its_replay_would_be_wrong() -> None:
    of = spec("clocked")
    whole = trained(training(of))
    live, _ = recorded(of)
    assert trained(live) != whole
    assert not Engine(of, "cuda", cuda_graphs=True).cuda_graph


def test_a_recording_that_waits_for_the_device_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="waits for the device"), Tape().recording():
        torch.rand(3).sum().item()


def test_gradients_and_losses_of_a_replay_are_those_of_its_batch_whatever_became_of_the_last() -> None:
    model = nn.Linear(3, 2)

    def passes(inputs: Tensor, labels: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        torch.autograd.backward(loss)
        return loss.detach()

    batches = [(torch.rand(4, 3), torch.tensor([0, 1, 1, 0])) for _ in range(3)]
    expected = []
    for batch in batches:
        model.zero_grad()
        expected.append((passes(*batch), model.weight.grad))
    model.zero_grad()
    graph, losses = StepGraph(passes, model, *batches[0], Tape()), []
    assert model.weight.grad is None
    for batch, (_, gradient) in zip(batches, expected, strict=True):
        losses.append(graph(*batch))
        assert torch.equal(model.weight.grad, gradient)  # type: ignore[arg-type]
        model.weight.grad.mul_(7)  # type: ignore[union-attr]
        model.weight.grad = torch.zeros(2, 3)
    assert losses == [loss for loss, _ in expected]


def test_the_engine_says_which_cells_are_captured_and_it_is_drift() -> None:
    of = spec("dst")
    several = dataclasses.replace(of, optimizer=dataclasses.replace(of.optimizer, micro_batch_size=4))
    asked, without = (str(Engine(of, "cuda", graphs)) for graphs in (True, False))
    assert asked == f"{without}+cuda_graph"
    assert str(Engine(several, "cuda", cuda_graphs=True)) == without, (
        "each of several passes has its own random numbers"
    )
    changed = [f"engine: {without} -> {asked}"]
    assert environment.drift({"engine": without}, {"engine": asked}) == changed
    with pytest.raises(SpecError, match="unknown method 'gone'"):
        str(Engine(dataclasses.replace(of, method={"name": "gone"}), "cuda", cuda_graphs=True))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_autocast_keeps_no_weights_of_its_own_where_a_graph_is_captured(graphs: bool) -> None:
    class Looks(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(torch.is_autocast_cache_enabled())
            return super().forward(inputs)

    seen: list[bool] = []
    Engine(spec("dense", precision="bfloat16"), "cuda", graphs).loss(Looks(2, 2), torch.rand(1, 2), torch.tensor([0]))
    assert seen == [not graphs]


def test_a_training_on_a_gpu_records_where_the_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "__post_init__", lambda self: None)
    captured, plain = spec("dst"), spec("clocked")
    for of, graphs, expected in ((captured, True, "CudaGraph"), (captured, False, None), (plain, True, None)):
        live = Training(of, data.load(of.data, data_dir=Path(), device=CPU), cuda_graphs=graphs)
        assert getattr(live.gradient.recorder, "__name__", None) == expected
        assert isinstance(live.gradient, Gradient)


@pytest.mark.parametrize("command", [("run",), ("speed",), ("speed", "--grid")], ids=" ".join)
def test_graphs_without_a_gpu_are_refused_in_one_line(command: tuple[str, ...], tmp_path: Path, bench: Bench) -> None:
    place = ("--out", tmp_path / "runs") if command == ("run",) else ()
    finished = bench(*command, "--cuda-graphs", "--device", "cpu", *place)
    assert (finished.code, finished.stdout) == (2, "")
    assert finished.error == "error: --cuda-graphs needs a GPU: leave it out on a CPU"
    assert not list(tmp_path.glob("runs/cells/*"))


def test_a_measurement_without_steps_has_no_use_for_graphs(bench: Bench) -> None:
    finished = bench("speed", "--start-up", "--cuda-graphs")
    assert (finished.code, finished.stdout) == (2, "")
    assert "speed --start-up has no use for --cuda-graphs" in finished.error


def test_a_place_without_a_gpu_refuses_graphs_before_it_trains(tmp_path: Path) -> None:
    runner = Runner(tmp_path, make_spec())
    runner.place = dataclasses.replace(runner.place, cuda_graphs=True)
    with pytest.raises(SpecError, match="--cuda-graphs needs a GPU"):
        runner.run()


def test_work_carries_the_choice_and_work_of_before_has_none(tmp_path: Path) -> None:
    work = Work(out=tmp_path, data_dir=tmp_path, device="cuda", cuda_graphs=True)
    plain = work.to_dict()
    assert Work.from_dict(plain) == work
    del plain["cuda_graphs"]
    assert not Work.from_dict(plain).cuda_graphs


@pytest.mark.slow
def test_the_choice_reaches_the_worker_process(tmp_path: Path) -> None:
    launcher = LocalLauncher(Work(out=tmp_path, data_dir=tmp_path, device="cpu", cuda_graphs=True), workers=1)
    launcher.submit([make_spec()])
    (end,) = [event.payload for event in launcher.events() if event.kind == "end"]
    assert (end["status"], end["code"]) == ("refused", 2)
    assert "--cuda-graphs needs a GPU" in end["error"]
