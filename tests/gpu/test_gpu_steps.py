"""Steps on a GPU: `pytest -m gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import methods
from benchmark import data
from benchmark.engine import prepare_process
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.train import Training, digest, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SGD = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=2)
ADAM = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=2)
STEPS = 5  # of 7 in an epoch: no method updates its masks before its end


@pytest.fixture(autouse=True)
def as_in_a_worker() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    prepare_process("cuda")
    yield
    torch.use_deterministic_algorithms(False)


def training(method: str, model: str, precision: str) -> Training:
    pixels = Data(name="synthetic", train_limit=200, test_limit=50, augment="crop-flip", standardize=True)
    optimizer = ADAM if model == "lstm-a" else SGD
    of: RunSpec = cell(method, data=pixels, model=Model(name=model), optimizer=optimizer)
    of = dataclasses.replace(of, precision=precision)
    return Training(of, data.load(of.data, data_dir=Path(), device=torch.device("cuda")))


def steps(live: Training, count: int) -> str:
    for _, (inputs, labels) in zip(range(count), live.batches(live.step), strict=False):
        train_step(live, inputs, labels)
        live.step += 1
    return digest(live.model, live.optimizer.state_dict(), live.attached.state_dict())


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
    whole, first, second = (training(method, "lenet-5-caffe", precision) for _ in range(3))
    steps(first, 3)
    second.load_state_dict(first.state_dict())
    assert steps(second, 3) == steps(whole, 6)
