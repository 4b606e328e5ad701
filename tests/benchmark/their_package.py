"""A package of somebody else's with a method, a model, a data set and a suite, built and installed by pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "their-package"
version = "{version}"

[tool.setuptools]
packages = ["their_package"]

[project.entry-points."sparse_training.methods"]
their_method = "their_package.method:TheirMethod"
broken_method = "their_package.broken:Missing"

[project.entry-points."sparse_training.models"]
their_model = "their_package.model:TheirModel"
broken_model = "their_package.broken:Missing"

[project.entry-points."sparse_training.datasets"]
their_data = "their_package.data:read"
broken_data = "their_package.broken:Missing"

[project.entry-points."sparse_training.suites"]
their_suite = "their_package.suite"
broken_suite = "their_package.broken"
mnist = "their_package.suite"
"""
MODULES = {
    "__init__": "",
    "broken": "raise OSError('the library of broken is missing')",
    "method": '''
from dataclasses import dataclass

import torch

from methods import Context, Method, budgets


@dataclass(kw_only=True)
class TheirMethod(Method):
    """Prunes the last weights of each layer at the start."""

    name = "their_method"
    version = 1
    reference = "none"
    density_promise = "exact"

    density: float = 0.5

    def enter_phase(self, ctx: Context) -> None:
        shapes = {name: tuple(weight.parameter.shape) for name, weight in ctx.weights.items()}
        counts = budgets.allocate(shapes, density=self.density, allocation="uniform")
        sizes = {name: weight.parameter.numel() for name, weight in ctx.weights.items()}
        masks = {name: torch.arange(sizes[name]).lt(counts[name]).view(shapes[name]) for name in shapes}
        ctx.masks.set(masks)
''',
    "model": '''
from torch import nn


class TheirModel(nn.Sequential):
    """One hidden layer of any width."""

    def __init__(self, in_shape, classes, widths=(16,)):
        channels, rows, columns = in_shape
        inputs = channels * rows * columns
        super().__init__(nn.Flatten(), nn.Linear(inputs, widths[0]), nn.ReLU(), nn.Linear(widths[0], classes))
''',
    "data": '''
import torch

from benchmark.data.tensors import Examples, Split


def read(spec, data_dir):
    """Stripes: the class is the row that is bright."""
    labels = torch.arange(240) % 4
    images = torch.randint(100, (240, 1, 4, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    images[torch.arange(240), 0, labels] = 250
    return Examples(Split(images[:200], labels[:200]), Split(images[200:], labels[200:]), classes=4)
''',
    "suite": '''
"""Their method beside static on their data."""

import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

methods.register("not_installed", "their_package.method:TheirMethod")


def suite():
    data, model, optimizer = Data(name="their_data"), Model(name="their_model"), Optimizer(batch_size=20, epochs=2)
    given = dict(data=data, model=model, optimizer=optimizer, protocol=())
    cells = [cell("dense", seed=seed, **given) for seed in range(2)]
    for method in ("their_method", "not_installed", "static"):
        cells += [cell(method, density=0.25, seed=seed, **given) for seed in range(2)]
    return cells
''',
}


def install(folder: Path, *, version: str = "1.0") -> Path:
    """Build and install the package without a network; the folder to put on the import path."""
    source, target = folder / "source", folder / "installed"
    (source / "their_package").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT.format(version=version))
    for name, text in MODULES.items():
        (source / "their_package" / f"{name}.py").write_text(text)
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target
