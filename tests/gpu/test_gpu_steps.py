"""Steps on a GPU: `pytest -m gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import methods
from benchmark import data
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.training.loop import Training, digest, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SGD = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=2)
ADAM = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=2)
STEPS = 5  # of 7 in an epoch: no method updates its masks before its end


def training(method: str, model: str, precision: str) -> Training:
    of = Model(name=model)
    pixels = Data(name="synthetic", train_limit=200, test_limit=50, augment="crop-flip", standardize=True)
    optimizer = ADAM if of.name == "lstm-a" else SGD
    spec: RunSpec = cell(method, data=pixels, model=of, optimizer=optimizer)
    spec = dataclasses.replace(spec, precision=precision)
    device = torch.device("cuda")
    return Training(spec, data.load(spec.data, data_dir=Path(), device=device))


def steps(live: Training, count: int) -> str:
    for _, (inputs, labels) in zip(range(count), live.batches(live.step), strict=False):
        train_step(live, inputs, labels)
        live.step += 1
    return bits(live)


def bits(live: Training) -> str:
    random = {"random": torch.get_rng_state(), "cuda_random": torch.cuda.get_rng_state()}
    return digest(live.model, live.optimizer.state_dict(), live.attached.state_dict(), random, {"loss": live.loss_sum})


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "lstm-a"])
@pytest.mark.parametrize("method", methods.available())
def test_a_step_on_a_gpu_never_waits_for_it(method: str, model: str, precision: str) -> None:
    live = training(method, model, precision)
    batches = live.batches(0)
    train_step(live, *next(batches))  # libraries begin with the first
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            train_step(live, *next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("method", methods.available())
def test_a_resume_on_a_gpu_ends_in_the_same_bits(method: str, precision: str) -> None:
    whole = steps(training(method, "lenet-5-caffe", precision), 6)
    first, second = (training(method, "lenet-5-caffe", precision) for _ in range(2))
    steps(first, 3)
    second.load_state_dict(first.state_dict())
    assert steps(second, 3) == whole
