"""What the paper prints, and where: its numbers (targets.csv), captions and names.

The numbers of targets.csv, and those that others published in rivals.csv and other_reproductions.csv,
are the only ones in `analysis` that are typed in by hand.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

CITATION = "Liu, Xu, Shi, Cheung, So: Dynamic Sparse Training, ICLR 2020, arXiv:2005.06870"
PLACES = {
    "table1": "Table 1, section 4.1",
    "table2": "Table 2, section 4.1",
    "table3": "Table 3, section 4.1",
    "figure1": "Figure 1, section 3.3",
    "figure2": "Figure 2, section 3.3",
    "figure3": "Figure 3, section 4.2",
    "figure4": "Figure 4, section 5.1",
    "figure5": "Figure 5, section 5.2",
    "figure6": "Figure 6, section 5.2",
    "figure7": "Figure 7, section 5.3",
    "figure8": "Figure 8, appendix A.4",
    "figure9": "Figure 9, appendix A.4",
    "figure10": "Figure 10, appendix A.4",
    "figure11": "Figure 11, appendix A.5",
    "figure12": "Figure 12, appendix A.5",
}
CAPTIONS = {
    "table1": "The pruning results on MNIST for various architectures",
    "table2": "Comparison with other sparse training methods on CIFAR-10",
    "table3": "Comparison with other sparse training methods for ResNet-50 on ImageNet",
    "figure1": "Detailed structure of trainable masked layer",
    "figure2": "The unit step function S(x) and its derivative approximations",
    "figure3": "Test accuracy of sparse model on CIFAR-10 and model remaining ratio for different alpha",
    "figure4": "Change of layer remaining ratio, model remaining ratio and test accuracy for Lenet-300-100 "
    "with alpha = 0.0005",
    "figure5": "VGG-16 trained with initial learning rate 0.1 and alpha = 5e-06",
    "figure6": "VGG-16 trained with initial learning rate 0.01 and alpha = 5e-06",
    "figure7": "The sparse pattern and percentage of parameter remaining for different choices of alpha on VGG-16",
    "figure8": "WideResNet-16-8 trained by dynamic sparse training with alpha = 1e-05",
    "figure9": "WideResNet-16-10 trained by dynamic sparse training with alpha = 1e-05",
    "figure10": "WideResNet-28-8 trained by dynamic sparse training with alpha = 1e-05",
    "figure11": "The sparse pattern and percentage of parameter remaining for different choices of alpha on WRN-16-8",
    "figure12": "The sparse pattern and percentage of parameter remaining for different choices of alpha on WRN-16-10",
}
ARCHITECTURES = {
    "lenet-300-100": "Lenet-300-100",
    "lenet-5-caffe": "Lenet-5-Caffe",
    "lstm-a": "LSTM-a",
    "lstm-b": "LSTM-b",
    "vgg16": "VGG-16",
    "wrn-16-8": "WideResNet-16-8",
    "wrn-16-10": "WideResNet-16-10",
    "wrn-28-8": "WideResNet-28-8",
    "resnet50": "ResNet-50",
}
METHODS = {
    "dense": "Dense",
    "dst": "DST",
    "sparse_momentum": "Sparse Momentum",
    "dsr": "DSR",
    "set": "SET",
    "static": "Static",
}
DATASETS = ("mnist", "cifar10", "imagenet")
# The initial learning rate that an exhibit is about, where the paper trains with several.
RATES = {"table2": 0.1, "figure5": 0.1, "figure6": 0.01}
TARGETS = Path(__file__).with_name("targets.csv")
LAYER_SIZES = Path(__file__).with_name("architectures.csv")


@dataclass(frozen=True)
class Target:
    """One row that the paper printed. Accuracies and densities are percentages; None: not printed.

    origin: "measured" by the paper's authors, or "quoted" by them from others.
    """

    exhibit: str
    dataset: str
    model: str
    method: str
    origin: str
    alpha: float | None
    density_percent: float | None
    density_std: float | None
    metric: str
    dense: float | None
    dense_std: float | None
    sparse: float | None
    sparse_std: float | None
    printed_difference: float | None
    parameters_millions: float | None
    note: str


@dataclass(frozen=True)
class LayerSizes:
    """Facts of an architecture that results tables do not hold.

    layers: maskable layers. rows: their output units or channels. weights: their weights.
    parameters: all parameters of the network.
    """

    layers: int
    rows: int
    weights: int
    parameters: int

    def thresholds(self, shape: str) -> int:
        """How many DST trains: one per layer ("scalar"), row ("vector") or weight ("matrix")."""
        return {"scalar": self.layers, "vector": self.rows, "matrix": self.weights}[shape]


def targets(exhibit: str) -> list[Target]:
    """The printed rows of an exhibit, in the paper's order."""
    texts = {"exhibit", "dataset", "model", "method", "origin", "metric", "note"}
    with TARGETS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["exhibit"] == exhibit]
    return [
        Target(**{name: text if name in texts else (float(text) if text else None) for name, text in row.items()})  # type: ignore[arg-type]
        for row in rows
    ]


def measured(dataset: str, model: str) -> list[Target]:
    """The top-1 accuracies that Tables 1 to 3 print of the authors' own DST runs on a network."""
    wanted = (dataset, model, "dst", "measured", "top1")
    tables = [target for exhibit in ("table1", "table2", "table3") for target in targets(exhibit)]
    return [t for t in tables if (t.dataset, t.model, t.method, t.origin, t.metric) == wanted]


def layer_sizes() -> dict[str, LayerSizes]:
    """By model, every network of the paper; the tests compare them with the models."""
    with LAYER_SIZES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("model"): LayerSizes(**{name: int(value) for name, value in row.items()}) for row in rows}


def number(exhibit: str) -> str:
    """The exhibit as the paper numbers it: `Table 1`."""
    return PLACES[exhibit].partition(",")[0]


def architecture(model: str) -> str:
    """An architecture in the paper's words, with its widths where they are others; other models keep their name."""
    name, _, widths = model.partition(" ")
    return f"{ARCHITECTURES.get(name, name)} {widths}".strip()


def method_name(method: str) -> str:
    """A method in the paper's words; other methods keep their name."""
    return METHODS.get(method, method)


def dataset(name: str) -> str:
    """A data set in a title: `MNIST`; others say that the paper does not have them."""
    return name.upper() if name in DATASETS else f"{name} (not the paper's data)"


def rank(model: str) -> tuple[int, str]:
    """Sorts models in the paper's order, others by name after them."""
    known = list(ARCHITECTURES)
    return (known.index(model) if model in known else len(known), model)
