"""The headings of exhibits on the page, in words instead of file names."""

from __future__ import annotations

import re

from analysis.paper import printed

NAMES = {
    "verdicts": "Verdicts, number by number",
    "claims": "Claims in words",
    "tableA2": "Thresholds per layer, row or weight",
    "field": "All methods in one setting",
    "paired-methods": "Methods at one density, paired by seed",
    "compact-networks": "Compact networks, trained densely",
    "alpha-interpolation": "The alpha for a printed density",
    "estimators": "Other estimators of the step's derivative",
    "gap": "Why Lenet-300-100 keeps more than printed",
    "gap-networks": "Does one set-up explain all rows of Table 1?",
    "lstm-counting": "Two ways to count an LSTM's weights",
    "training-cost": "Seconds per training step",
    "validation": "Which epoch held-out examples choose",
    "verdict-power": "How often a verdict would be right",
    "other-reproductions": "Another reproduction of DST",
    "rivals-mnist": "Rivals' published numbers, MNIST",
    "rivals-cifar10": "Rivals' published numbers, CIFAR-10",
    "pattern-consistency": "How consistent the sparse pattern is",
    "reset-rules": "The reset of thresholds, on, off and by other rules",
    "threshold-resets": "Resets of thresholds",
    "vgg16-narrow-figure3": "VGG-16 scaled down: accuracy and weights kept by alpha",
    "vgg16-narrow-figure5": "VGG-16 scaled down: training at learning rate 0.1",
    "vgg16-narrow-figure6": "VGG-16 scaled down: training at learning rate 0.01",
    "vgg16-narrow-figure7": "VGG-16 scaled down: the sparse pattern",
    "vgg16-narrow-schedules": "VGG-16 scaled down: whose learning rate decays",
    "vgg16-narrow-claims": "VGG-16 scaled down: the claims of 5.2 and 5.3",
}
# names of exhibits of one data set or network; {} stands for it
PATTERNS = (
    (r"(.+)-figure3", "{}: accuracy and weights kept by alpha"),
    (r"(.+)-figure4", "{}: weights kept by layer, over training"),
    (r"(.+)-figure7", "{}: the sparse pattern"),
    (r"(.+)-accuracy-density", "{}: accuracy against density"),
    (r"(.+)-accuracy-flops", "{}: accuracy against FLOPs"),
    (r"(.+)-resets", "{}: resets of thresholds"),
)
SUFFIXES = {"-verdicts": "verdicts at every alpha", "-default-alpha": "default alpha"}


def heading(name: str) -> str:
    """An exhibit in a few words: `Table 1`, `MNIST: the sparse pattern`."""
    if name in NAMES:
        return NAMES[name]
    for suffix, words in SUFFIXES.items():
        if name.endswith(suffix) and (stem := name.removesuffix(suffix)) in printed.PLACES:
            return f"{printed.number(stem)}: {words}"
    if name in printed.PLACES:
        return printed.number(name)
    for pattern, words in PATTERNS:
        if found := re.fullmatch(pattern, name):
            return words.replace("{}", _spelled(found[1]))
    return f"All of {name}, in the layout of Table 2"


def _spelled(name: str) -> str:
    """A data set, or a data set and a network: `MNIST`, `MNIST, Lenet-5-Caffe`."""
    dataset, _, model = name.partition("-")
    if dataset in printed.DATASETS:
        return ", ".join(filter(None, [dataset.upper(), printed.architecture(model)]))
    return name
