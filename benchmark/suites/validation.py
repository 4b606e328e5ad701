"""Which epoch a validation split chooses, and what the test set says of it.

The paper does not say which epoch it prints, and the authors' code reports the best test accuracy.
Here each cell of Table 1, DST at the stated alpha, is trained on the first 55,000 examples, twice:
once it is evaluated on the 5,000 that are held out, once on the test set. Evaluation changes
nothing in a training, so the two are the same networks, epoch by epoch; the exhibit checks that.
"""

from __future__ import annotations

import dataclasses

from benchmark.spec import Data, RunSpec
from benchmark.suites import mnist

DESCRIPTION = "Table 1's DST cells on 55,000 examples: the epoch that 5,000 held-out ones choose, read on the test set"
EXHIBITS = ("validation",)
SEEDS = range(3)
EXAMPLES, HELD_OUT = 60_000, 5_000
SPLITS = (
    dataclasses.replace(mnist.MNIST, validation=HELD_OUT),
    dataclasses.replace(mnist.MNIST, train_limit=EXAMPLES - HELD_OUT),
)


def suite() -> list[RunSpec]:
    return [on(data, spec) for seed in SEEDS for spec in stated(seed) for data in SPLITS]


def stated(seed: int) -> list[RunSpec]:
    """DST as Table 1 states it."""
    lenets = [mnist.lenet(name, "dst", seed, alpha=mnist.LENET_ALPHA) for name in mnist.LENETS]
    return [*lenets, *(mnist.lstm(name, "dst", "paper", seed, alpha=mnist.LSTM_ALPHA) for name in mnist.LSTMS)]


def on(data: Data, spec: RunSpec) -> RunSpec:
    """The cell on a part of its data: in no protocol, and without the records of Figure 4."""
    return dataclasses.replace(spec, data=data, protocol=(), step_records=None)
