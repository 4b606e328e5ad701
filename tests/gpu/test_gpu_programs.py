"""Cells side by side on a GPU: `pytest -m gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmark import data
from benchmark.program import Program
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell
from benchmark.train import Training, digest, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SMALL_VGG = Model(name="vgg16", widths=(8,) * 13 + (16,))
MODELS = [Model(name="lenet-300-100"), Model(name="lenet-5-caffe"), SMALL_VGG]
METHODS = ["dense", "static", "dst"]


def begun(
    method: str, model: Model, seeds: Sequence[int], *, cuda_graphs: bool = False, mnist: Path | None = None
) -> list[Training]:
    """On noise, or on MNIST of this folder."""
    shape = (3, 32, 32) if model.name == "vgg16" else None
    pixels = Data(name="synthetic", shape=shape, train_limit=6400, test_limit=50, standardize=True)
    if mnist:
        pixels = Data(name="mnist", train_limit=12_800)
    optimizer = Optimizer(lr=0.01, momentum=0.9, batch_size=64 if mnist else 32, epochs=1)
    spec = cell(method, data=pixels, model=model, optimizer=optimizer)
    dataset = data.load(pixels, data_dir=mnist or Path(), device=torch.device("cuda"))
    trainings = [Training(dataclasses.replace(spec, seed=seed), dataset, cuda_graphs=cuda_graphs) for seed in seeds]
    for training in trainings:
        training.model.train()
    return trainings


def together(trainings: Sequence[Training], width: int, steps: int) -> torch.Tensor:
    """Losses [steps, cells]."""
    program, batches = Program(trainings, width), [training.batches(0) for training in trainings]
    return torch.stack([program.step([next(of) for of in batches]) for _ in range(steps)])[:, : len(trainings)]


def bits(training: Training) -> str:
    return digest(training.model, training.optimizer.state_dict(), training.attached.state_dict())


def differences(alone: Sequence[Training], beside: Sequence[Training], steps: int) -> torch.Tensor:
    """Of the losses of cells alone and in a program of 4: [steps, cells]."""
    columns = [
        torch.stack([train_step(live, *batch) for _, batch in zip(range(steps), live.batches(0), strict=False)])
        for live in alone
    ]
    return (torch.stack(columns, dim=1) - together(beside, 4, steps)).abs()


@pytest.mark.parametrize(("model", "steps"), zip(MODELS, (20, 20, 2), strict=True))
@pytest.mark.parametrize("method", METHODS)
def test_cells_of_a_program_compute_what_they_would_alone(method: str, model: Model, steps: int) -> None:
    """In few steps: on noise rounding errors soon grow, most through batch normalisation."""
    alone, beside = begun(method, model, range(3)), begun(method, model, range(3))
    assert float(differences(alone, beside, steps).max()) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_two_hundred_steps_on_mnist_are_those_of_cells_alone(method: str, data_dir: Path) -> None:
    alone, beside = (begun(method, MODELS[0], range(3), mnist=data_dir) for _ in range(2))
    assert float(differences(alone, beside, 200).max()) < 1e-4


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("method", METHODS)
def test_a_cells_bits_depend_on_the_width_and_not_on_its_company(method: str, model: Model, cuda_graphs: bool) -> None:
    accompanied, lonely = begun(method, model, range(3)), begun(method, model, [2], cuda_graphs=cuda_graphs)
    together(accompanied, 4, 5)
    together(lonely, 4, 5)
    assert bits(accompanied[2]) == bits(lonely[0])


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_program_never_waits_for_the_gpu(method: str, cuda_graphs: bool) -> None:
    trainings = begun(method, MODELS[0], range(3), cuda_graphs=cuda_graphs)
    program, batches = Program(trainings, 3), [training.batches(0) for training in trainings]
    program.step([next(of) for of in batches])  # libraries begin with the first, and a graph is captured
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            program.step([next(of) for of in batches])
    finally:
        torch.cuda.set_sync_debug_mode("default")
