"""Steps on a GPU: `pytest -m gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from torch import nn

import methods
from benchmark import data
from benchmark.graphs import CudaGraph, StepGraph
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.train import Training, digest, train_epoch, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SGD = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=2)
ADAM = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=2)
STEPS = 5  # of 7 in an epoch: no method updates its masks before its end


CARRIED = Model(name="lstm-a", hidden_state="carried")
SMALL_VGG = Model(name="vgg16", widths=(8,) * 13 + (16,))


def training(method: str, model: str | Model, precision: str, *, cuda_graphs: bool = False) -> Training:
    of = Model(name=model) if isinstance(model, str) else model
    shape = (3, 32, 32) if of.name == "vgg16" else None
    pixels = Data(name="synthetic", shape=shape, train_limit=200, test_limit=50, augment="crop-flip", standardize=True)
    optimizer = ADAM if of.name == "lstm-a" else SGD
    spec: RunSpec = cell(method, data=pixels, model=of, optimizer=optimizer)
    spec = dataclasses.replace(spec, precision=precision)
    device = torch.device("cuda")
    live = Training(spec, data.load(spec.data, data_dir=Path(), device=device), cuda_graphs=cuda_graphs)
    if of.name == "vgg16":  # no model of ours has dropout
        live.model.fc1_relu = nn.Sequential(nn.ReLU(), nn.Dropout())
    return live


def steps(live: Training, count: int) -> str:
    for _, (inputs, labels) in zip(range(count), live.batches(live.step), strict=False):
        train_step(live, inputs, labels)
        live.step += 1
    return bits(live)


def bits(live: Training) -> str:
    random = {"random": torch.get_rng_state(), "cuda_random": torch.cuda.get_rng_state()}
    return digest(live.model, live.optimizer.state_dict(), live.attached.state_dict(), random, {"loss": live.loss_sum})


def trained(live: Training) -> str:
    """Both epochs: the smaller batch that ends each, and the masks' updates between."""
    while live.epoch < live.epochs:
        train_epoch(live, lambda: None)
    return bits(live)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "lstm-a"])
@pytest.mark.parametrize("method", methods.available())
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_step_on_a_gpu_never_waits_for_it(method: str, model: str, precision: str, cuda_graphs: bool) -> None:
    live = training(method, model, precision, cuda_graphs=cuda_graphs)
    batches = live.batches(0)
    train_step(live, *next(batches))  # libraries begin with the first, and a graph is captured
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            train_step(live, *next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("method", methods.available())
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_resume_on_a_gpu_ends_in_the_same_bits(method: str, precision: str, cuda_graphs: bool) -> None:
    whole = steps(training(method, "lenet-5-caffe", precision), 6)
    first, second = (training(method, "lenet-5-caffe", precision, cuda_graphs=cuda_graphs) for _ in range(2))
    steps(first, 3)
    second.load_state_dict(first.state_dict())
    assert steps(second, 3) == whole


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "lstm-a", CARRIED, SMALL_VGG, "wrn-22-2"], ids=str)
@pytest.mark.parametrize("method", methods.available())
def test_a_captured_training_has_the_bits_of_one_that_is_not(method: str, model: str | Model, precision: str) -> None:
    whole = trained(training(method, model, precision))
    live = training(method, model, precision, cuda_graphs=True)
    assert live.gradient.recorder is CudaGraph
    assert trained(live) == whole


@pytest.mark.parametrize("model", [SMALL_VGG, CARRIED], ids=str)
def test_a_capture_on_a_gpu_leaves_no_trace(model: Model) -> None:
    live = training("dst", model, "float32", cuda_graphs=True)
    live.model.train()
    before, (inputs, labels) = bits(live), next(live.batches(0))
    StepGraph(live.gradient._one_pass, live.model, inputs, labels, CudaGraph())
    assert bits(live) == before
    assert all(parameter.grad is None for parameter in live.model.parameters())


def test_the_graphs_of_ended_cells_are_given_back() -> None:
    held = []
    for _ in range(4):
        steps(training("dst", SMALL_VGG, "float32", cuda_graphs=True), 2)
        gc.collect()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[-1] <= held[1], "the first cell pays for the libraries' own memory"
