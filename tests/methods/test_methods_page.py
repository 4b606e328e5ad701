"""The table of docs/methods.md is made from the methods' classes."""

from __future__ import annotations

import inspect
import pkgutil
from pathlib import Path

import torch
from torch import nn

import methods
from methods import Method, algorithms
from methods.registry import method_class

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEAD = "| method | what it does | family | prunes | density | steps | source |\n|---|---|---|---|---|---|---|\n"
PROMISES = {"dense": "all", "exact": "exact", "final": "exact at the end", "emergent": "emergent"}


def attached(name: str) -> methods.Attachment:
    """The method with its defaults on a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 2))
    batches = [(torch.randn(20, 8), torch.arange(20) % 2) for _ in range(2)]
    density = {"density": 0.5} if "density" in method_class(name).hyperparameter_names() else {}
    values = {"total_steps": 1000, "steps_per_epoch": 50, "train_batches": lambda: iter(batches)}
    return methods.attach(model, name, **values, **density)


def family(at: methods.Attachment) -> str:
    if at.method.density_promise == "dense":
        return "none"
    if len(at.context.thresholds):
        return "reparametrized"
    return "masked forward" if at.method.masking == "forward" else "masked in place"


def source(method: Method) -> str:
    reference = method.reference
    if reference.startswith("arXiv:"):
        return f"[{reference}](https://arxiv.org/abs/{reference.removeprefix('arXiv:')})"
    return f"[doi:{reference}](https://doi.org/{reference})" if reference.startswith("10.") else reference


def row(name: str) -> str:
    at = attached(name)
    first = (inspect.getdoc(type(at.method)) or "").splitlines()[0]
    cells = [
        f"[`{name}`](../methods/algorithms/{name}.py)",
        first.removesuffix("."),
        family(at),
        {"weight": "weights", "unit": "units"}[at.method.granularity] if family(at) != "none" else "nothing",
        PROMISES[at.method.density_promise] + (", to less than a unit" if at.method.granularity == "unit" else ""),
        f"{sum(phase.steps for phase in methods.create(name).phases(1000)) / 1000:g}",
        source(at.method),
    ]
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    return HEAD + "".join(row(module.name) for module in pkgutil.iter_modules(algorithms.__path__))


def test_the_table_is_that_of_the_classes() -> None:
    want = table() + "\n"
    assert want in PAGE.read_text(), f"python tests/methods/test_methods_page.py writes this table:\n{want}"


def write() -> None:
    """Replace the table of the page."""
    before, _, rest = PAGE.read_text().partition(HEAD)
    PAGE.write_text(before + table() + "\n" + rest.partition("\n\n")[2])


if __name__ == "__main__":
    write()
