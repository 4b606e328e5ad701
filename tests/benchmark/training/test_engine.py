"""How steps are executed: layout, precision, optimizers and the process; none of it changes what is promised."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from one_cell import Runner, make_spec
from processor import need_bfloat16_lstm
from torch import Tensor

import methods
from benchmark import data
from benchmark.run_folder.files import read_json
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError
from benchmark.suites import cell
from benchmark.suites.cifar10_narrow import NARROW
from benchmark.training import environment
from benchmark.training.engine import Engine, channels_last
from benchmark.training.loop import Training, digest, make_optimizer, train_epoch

PIXELS = Data(name="synthetic", train_limit=200, test_limit=50)
CARRIED = Model(name="lstm-a", hidden_state="carried")


def spec(method: str = "dense", model: str | Model = "lenet-300-100", precision: str = "float32") -> RunSpec:
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=2)
    of = model if isinstance(model, Model) else Model(name=model)
    return dataclasses.replace(cell(method, data=PIXELS, model=of, optimizer=optimizer), precision=precision)


def training(of: RunSpec) -> Training:
    return Training(of, data.load(of.data, data_dir=Path(), device=torch.device("cpu")))


def trained(live: Training) -> str:
    while live.epoch < live.epochs:
        train_epoch(live, lambda: None)
    return digest(live.model, live.optimizer.state_dict(), live.attached.state_dict())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_channels_last_are_the_same_images(channels: int) -> None:
    images = torch.rand(2, channels, 4, 5)
    turned = channels_last(images)
    assert torch.equal(turned, images)
    assert turned.stride() == (channels * 20, 1, 5 * channels, channels)


def test_a_convolution_computes_in_channels_last_and_its_weights_stay_as_they_are() -> None:
    live, layouts = training(spec("dst", "lenet-5-caffe")), []
    live.model.conv2.register_forward_hook(lambda *call: layouts.append(call[2].stride()))  # type: ignore[operator,union-attr]
    inputs, labels = next(iter(live.batches(0)))
    loss = live.gradient.backward(inputs, labels, step=0, examples=len(labels))
    assert {strides[1] for strides in layouts} == {1}
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(live.model(inputs), labels).item(), rel=1e-5)
    assert all(parameter.is_contiguous() for parameter in live.model.parameters())


def test_only_networks_that_gain_from_it_are_in_channels_last_on_a_cpu() -> None:
    models = {name: Model(name=name) for name in ("lenet-300-100", "lenet-5-caffe", "lstm-a", "vgg16", "wrn-16-8")}
    models["narrow"], models["half as wide"] = NARROW, Model(name="vgg16", widths=(*13 * (256,), 64))
    turned = {name for name, model in models.items() if Engine(spec("dst", model), "cpu").channels_last}
    assert turned == {"lenet-5-caffe", "narrow"}
    assert not Engine(spec("dst", NARROW, "bfloat16"), "cpu").channels_last


def every_method_and_each_family_on_other_layers() -> list[Any]:
    """All methods on linear layers; on convolutions and an LSTM one of each family, and the others as rare tests."""
    families = ("dense", "set", "dst", "top_kast", "soft_filter")
    cells = [pytest.param(method, "lenet-300-100") for method in methods.available()]
    for method, model in itertools.product(methods.available(), ("lenet-5-caffe", CARRIED)):
        marks = () if method in families else (pytest.mark.slow, pytest.mark.rare)
        cells.append(pytest.param(method, model, marks=marks))
    return cells


@pytest.mark.parametrize(("method", "model"), every_method_and_each_family_on_other_layers(), ids=str)
def test_bfloat16_trains_every_method_and_resumes_in_the_same_bits(method: str, model: str | Model) -> None:
    if model is CARRIED:
        need_bfloat16_lstm()
    of = spec(method, model, "bfloat16")
    first, states = training(of), []

    def save() -> None:
        if first.step == 3 and not states:
            states.append(first.state_dict() | {"model": {k: v.clone() for k, v in first.model.state_dict().items()}})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_epoch(first, save)
    second = training(of)
    second.load_state_dict(states[0])
    whole = trained(training(of))
    assert trained(second) == whole
    assert trained(training(spec(method, model))) != whole, "float32 has other bits"


def test_in_bfloat16_the_forward_pass_alone_is_narrow() -> None:
    live, seen = training(spec("dst", precision="bfloat16")), list[torch.dtype]()
    live.model.fc2.register_forward_hook(lambda *call: seen.append(call[2].dtype))  # type: ignore[operator,union-attr]
    inputs, labels = next(iter(live.batches(0)))
    loss = live.gradient.backward(inputs, labels, step=0, examples=len(labels))
    assert seen == [torch.bfloat16]
    assert loss.dtype == torch.float32
    assert {p.grad.dtype for p in live.model.parameters() if p.grad is not None} == {torch.float32}
    live.model(inputs)
    assert seen[-1] == torch.float32, "an evaluation is no part of the training's precision"


def test_a_bfloat16_cell_that_was_stopped_ends_in_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    of = dataclasses.replace(make_spec(), precision="bfloat16")
    whole, halves = Runner(tmp_path / "whole", of), Runner(tmp_path / "halves", of)
    assert whole.run().status == "done"
    assert halves.run(stop_after=2).status == "interrupted"
    assert halves.run().status == "done"
    assert halves.resumed
    sums = [read_json(runner.cell / "result.json")["state_sha256"] for runner in (whole, halves)]
    assert sums[0] == sums[1]
    assert read_json(whole.cell / "spec.json")["precision"] == "bfloat16"
    assert "bfloat16" in of.label


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables choose among instruction sets of x86")
def test_a_bfloat16_lstm_is_refused_by_name_on_a_cpu_without_avx512(tmp_path: Path) -> None:
    """oneDNN, told to use AVX2 only, has what a CPU without AVX-512 has."""
    avx2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = ["run", "--suite", "digits", "--where", "method=dense", "--where", "model=lstm-a", "--seeds", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", *command, "--set", "precision=bfloat16", "--out", str(tmp_path)],
        env={**os.environ, **avx2},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert errors == [
        "error: lstm-a dense bfloat16 seed=0: this CPU cannot run an LSTM in bfloat16 (oneDNN needs AVX-512 for it): "
        "use float32, a GPU or another CPU"
    ]


def test_tf32_on_a_cpu_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="precision tf32 needs a GPU: use float32 or bfloat16") as caught:
        Runner(tmp_path, dataclasses.replace(make_spec(), precision="tf32")).run()
    assert "\n" not in str(caught.value)


def test_tf32_is_allowed_in_the_passes_of_its_cells_and_nowhere_else() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = allowed()
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with Engine(spec(precision="float32"), "cuda").arithmetic():
            assert allowed() == (False, False)
        with Engine(spec(precision="tf32"), "cuda").arithmetic():
            assert allowed() == (True, True)
        assert allowed() == (False, False)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_engine_is_recorded_and_another_one_is_drift(tmp_path: Path) -> None:
    runner = Runner(tmp_path, make_spec(epochs=1))
    assert runner.run().status == "done"
    now = read_json(runner.cell / "environment.json")
    assert now["engine"] == {"channels_last": False, "fused": True, "flush_denormal": False}
    other = Engine(spec(model="lenet-5-caffe"), "cpu").to_dict()
    assert environment.drift(now, {**now, "engine": other}) == ["engine: fused -> channels_last+fused"]


def test_an_engine_that_was_recorded_as_text_is_still_compared() -> None:
    now = {"engine": {"channels_last": True, "fused": True, "flush_denormal": True}}
    assert environment.drift({"engine": "channels_last+fused+flush_denormal"}, now) == []
    graph = {"engine": "channels_last+fused+flush_denormal+cuda_graph"}
    named = "channels_last+cuda_graph+flush_denormal+fused -> channels_last+flush_denormal+fused"
    assert environment.drift(graph, now) == [f"engine: {named}"]


def test_a_state_whose_groups_have_come_to_equal_options_keeps_them() -> None:
    """As a method may change a group's decay as it trains; the new optimizer's groups differ still."""
    of = spec("dst")
    of = dataclasses.replace(of, optimizer=dataclasses.replace(of.optimizer, weight_decay=5e-4))
    live, resumed = training(of), training(of)
    assert [group["weight_decay"] for group in live.optimizer.param_groups] == [5e-4, 0]
    live.optimizer.param_groups[1]["weight_decay"] = 5e-4
    train_epoch(live, lambda: None)
    resumed.load_state_dict(copy.deepcopy(live.state_dict()))
    assert [group["weight_decay"] for group in resumed.optimizer.param_groups] == [5e-4, 5e-4]
    assert trained(resumed) == trained(live)


def test_a_state_keeps_the_learning_rate_that_it_was_saved_with() -> None:
    of = spec("dst")
    of = dataclasses.replace(
        of, optimizer=dataclasses.replace(of.optimizer, schedule="step", milestones=(1,), gamma=0.5)
    )
    live, loaded = training(of), training(of)
    want = trained(live)
    loaded.load_state_dict(live.state_dict())
    assert loaded.optimizer.param_groups[0]["lr"] == live.optimizer.param_groups[0]["lr"] == of.optimizer.lr / 2
    assert trained(loaded) == want


def test_groups_are_merged_where_adjacent_ones_have_equal_options() -> None:
    one, two, three, four = (torch.nn.Parameter(torch.zeros(1)) for _ in range(4))
    given = [
        {"params": [one], "weight_decay": 0.1},
        {"params": [two], "weight_decay": 0.0},
        {"params": [three], "weight_decay": 0.0},
        {"params": [four], "weight_decay": 0.1},
    ]
    optimizer = make_optimizer(spec().optimizer, given)
    assert [(group["params"], group["weight_decay"]) for group in optimizer.param_groups] == [
        ([one], 0.1),
        ([two, three], 0.0),
        ([four], 0.1),
    ]
    assert [len(group["params"]) for group in given] == [1, 1, 1, 1]


PROCESS = """
import resource, torch
from benchmark.training.engine import Engine, prepare_process
{prepare}
def step():
    del_me = [torch.ones(12 << 20) for _ in range(2)]
for _ in range(10): step()  # by then the heap has room for a step
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, float(torch.full((8,), 1e-30).mul_(1e-10).sum()))
"""


def in_a_process(prepare: str) -> tuple[int, float]:
    run: Any = subprocess.run([sys.executable, "-c", PROCESS.format(prepare=prepare)], capture_output=True, text=True)
    faults, tiny = run.stdout.split()
    return int(faults), float(tiny)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_a_worker_keeps_freed_memory_and_takes_denormal_numbers_for_zero() -> None:
    faults, tiny = in_a_process("prepare_process('cpu')")
    assert tiny == 0
    many, denormal = in_a_process("")
    assert denormal > 0
    assert faults < many / 10


def test_gradients_are_those_of_the_plain_step_but_for_rounding() -> None:
    fast, plain = training(spec("dst", "lenet-5-caffe")), training(spec("dst", "lenet-5-caffe"))
    inputs, labels = next(iter(fast.batches(0)))
    fast.gradient.backward(inputs, labels, step=0, examples=len(labels))
    objective: Tensor = torch.nn.functional.cross_entropy(plain.model(inputs), labels) + plain.attached.penalty()
    objective.backward()
    for (name, one), other in zip(fast.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
