"""Table 1 and Figure 4: the LeNets and LSTMs on MNIST, in both protocols (docs/protocols.md).

Around the paper's cells, ladders of alpha and baselines at the printed densities and at 5 %. Cells
come seed by seed, so that every condition is there once before any is there twice.
"""

from __future__ import annotations

from typing import Any

from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "Table 1 on MNIST: LeNets and LSTMs, both protocols, ladders of alpha, baselines at matched densities"
EXHIBITS = ("table1", "figure4")
SEEDS = range(5)
OTHER_SEEDS = range(3)  # of the cells that no verdict is on
MNIST = Data(name="mnist")
SGD = Optimizer(name="sgd", lr=0.01, momentum=0.9, batch_size=64, epochs=20)
ADAM = Optimizer(name="adam", lr=0.001, batch_size=100, epochs=20)
LENETS = ("lenet-300-100", "lenet-5-caffe")
LSTMS = ("lstm-a", "lstm-b")
LENET_ALPHA, LSTM_ALPHA, OFFICIAL_LSTM_ALPHA = 5e-4, 1e-3, 1e-4
# What is known of alpha and density. LeNet-300-100, 5 seeds of ours: 5e-4 leaves 8.3 %, 1e-3 2.6 %;
# printed 2.48 %. LeNet-5-Caffe, the authors' code, one run each: 5e-4 never below 2.8 %, 1e-3 1.4 to
# 1.6 %; printed 1.64 %; ours at the epoch of lowest density crosses it at 9.3e-4. The LSTMs were not
# measured before, so their grids have whole decades around the two alphas of the sources.
LADDERS = {
    "lenet-300-100": (7.5e-4, 1.25e-3, 1.5e-3, 2e-3),
    "lenet-5-caffe": (2.5e-4, 7.5e-4, 9e-4, 1.25e-3, 1.5e-3),
    "lstm-a": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lstm-b": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
# A density counts as the printed one within a factor of 1.25, so that a decade has to be cut finely
# where the printed density may be. LSTM-a at the stated 1e-3: 1.4 %; printed 1.93 %, so below it.
# LSTM-b (0.98 %): both sides. Only in the protocol that the verdict is on.
RUNGS = {"lstm-a": (5e-4, 6.3e-4, 8e-4, 1.25e-3), "lstm-b": (5e-4, 6.3e-4, 8e-4, 1.25e-3, 1.6e-3)}
PRINTED_DENSITY = {"lenet-300-100": 0.0248, "lenet-5-caffe": 0.0164, "lstm-a": 0.0193, "lstm-b": 0.0098}
BASELINES = ("static", "set", "dsr", "sparse_momentum")


def suite() -> list[RunSpec]:
    return [
        spec
        for seed in SEEDS
        for spec in [*lenets(seed), *lstms(seed), *ladders(seed), *(others(seed) if seed in OTHER_SEEDS else [])]
    ]


def lenet(name: str, method: str, seed: int, **hyperparameters: Any) -> RunSpec:
    """A.1's recipe; paper and code agree, so there is one cell.

    Figure 4's cell records every step of epoch 1.
    """
    figure4 = (name, method, hyperparameters) == ("lenet-300-100", "dst", {"alpha": LENET_ALPHA})
    return cell(
        method,
        data=MNIST,
        model=Model(name=name),
        optimizer=SGD,
        seed=seed,
        step_records=1 if figure4 else None,
        **hyperparameters,
    )


def lenets(seed: int) -> list[RunSpec]:
    """The dense twin, the stated alpha, and the one that gives the printed density."""
    return [
        spec
        for name in LENETS
        for spec in [
            lenet(name, "dense", seed),
            *(lenet(name, "dst", seed, alpha=alpha) for alpha in (LENET_ALPHA, 1e-3)),
        ]
    ]


def lstms(seed: int) -> list[RunSpec]:
    return [spec for name in LSTMS for spec in [*twins(name, "paper", seed), *twins(name, "official", seed)]]


def twins(name: str, protocol: str, seed: int) -> list[RunSpec]:
    alpha = LSTM_ALPHA if protocol == "paper" else OFFICIAL_LSTM_ALPHA
    return [lstm(name, "dense", protocol, seed), lstm(name, "dst", protocol, seed, alpha=alpha)]


def lstm(name: str, method: str, protocol: str, seed: int, **hyperparameters: Any) -> RunSpec:
    model = Model(name=name)
    if protocol == "official":
        start = "official-dense" if method == "dense" else "official-masked"
        model = Model(name=name, initialization=start, hidden_state="carried")
    return cell(method, data=MNIST, model=model, optimizer=ADAM, seed=seed, protocol=(protocol,), **hyperparameters)


def ladders(seed: int) -> list[RunSpec]:
    """Alphas around the printed density of each model, in the protocol that the verdict is on."""
    at_lenets = [lenet(name, "dst", seed, alpha=alpha) for name in LENETS for alpha in LADDERS[name]]
    rungs = [lstm(name, "dst", "paper", seed, alpha=alpha) for name in LSTMS for alpha in RUNGS[name]]
    return [*at_lenets, *lstm_ladders("paper", LSTM_ALPHA, seed), *rungs]


def lstm_ladders(protocol: str, stated: float, seed: int) -> list[RunSpec]:
    """Without the stated alpha, which `twins` has already."""
    return [
        lstm(name, "dst", protocol, seed, alpha=alpha) for name in LSTMS for alpha in LADDERS[name] if alpha != stated
    ]


def others(seed: int) -> list[RunSpec]:
    return [*lstm_ladders("official", OFFICIAL_LSTM_ALPHA, seed), *baselines(seed)]


def baselines(seed: int) -> list[RunSpec]:
    """All start from Erdos-Renyi-Kernel masks and differ in what they do afterwards."""
    specs = []
    for name, printed in PRINTED_DENSITY.items():
        for density in (printed, 0.05):
            for method in BASELINES:
                specs.append(
                    lenet(name, method, seed, density=density)
                    if name in LENETS
                    else lstm(name, method, "paper", seed, density=density)
                )
    return specs
