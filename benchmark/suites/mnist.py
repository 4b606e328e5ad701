"""Table 1 and Figure 4: the LeNets and LSTMs on MNIST, in both protocols (docs/protocols.md)."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "Table 1 on MNIST: the LeNets at alpha 5e-4 and 1e-3, the LSTMs, dense twins, both protocols"
EXHIBITS = ("table1", "figure4")
SEEDS = range(5)
MNIST = Data(name="mnist")
SGD = Optimizer(name="sgd", lr=0.01, momentum=0.9, batch_size=64, epochs=20)
ADAM = Optimizer(name="adam", lr=0.001, batch_size=100, epochs=20)


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for spec in [*lenets(seed), *lstms(seed)]]


def lenets(seed: int) -> list[RunSpec]:
    """A.1's setting; where paper and code agree there is one cell. Figure 4's cells record epoch 1 by step."""
    specs = []
    for name in ("lenet-300-100", "lenet-5-caffe"):
        model = Model(name=name)
        specs.append(cell("dense", data=MNIST, model=model, optimizer=SGD, seed=seed))
        for alpha in (5e-4, 1e-3):
            figure4 = 1 if (name, alpha) == ("lenet-300-100", 5e-4) else None
            specs.append(
                cell("dst", data=MNIST, model=model, optimizer=SGD, seed=seed, alpha=alpha, step_records=figure4)
            )
    return specs


def lstms(seed: int) -> list[RunSpec]:
    return [
        spec
        for name in ("lstm-a", "lstm-b")
        for spec in [
            *twins(Model(name=name), Model(name=name), 1e-3, seed, ("paper",)),
            *twins(_official(name, "official-dense"), _official(name, "official-masked"), 1e-4, seed, ("official",)),
        ]
    ]


def twins(dense: Model, sparse: Model, alpha: float, seed: int, protocol: Sequence[str]) -> list[RunSpec]:
    return [
        cell("dense", data=MNIST, model=dense, optimizer=ADAM, seed=seed, protocol=protocol),
        cell("dst", data=MNIST, model=sparse, optimizer=ADAM, seed=seed, protocol=protocol, alpha=alpha),
    ]


def _official(name: str, initialization: str) -> Model:
    return Model(name=name, initialization=initialization, hidden_state="carried")
