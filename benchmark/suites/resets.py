"""The reset of thresholds (appendix A.1): with it, without it, and by other rules.

- On the LeNets, alphas from the stated one to a hundred times it, with the reset of the paper and
  without any: which train (the paper's claim)?
- On LeNet-5-Caffe, whose density swings under the paper's rule, two other rules at two alphas.
- On the LSTMs at the stated alpha, a reset of the recurrent layers too, which the paper and the
  authors' code never reset.
"""

from __future__ import annotations

from typing import Any

from benchmark.spec import RunSpec
from benchmark.suites.mnist import LENET_ALPHA, LENETS, LSTM_ALPHA, LSTMS, lenet, lstm

DESCRIPTION = "A.1: the reset of thresholds on the LeNets, on and off over alpha; other rules; recurrent layers too"
EXHIBITS = ("reset-rules",)
SEEDS = range(3)
# The last three were added for each LeNet when it had trained at the others with and without the reset.
ALPHAS = (LENET_ALPHA, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
SAW_TOOTH = "lenet-5-caffe"
RULE_ALPHAS = (LENET_ALPHA, 1e-3)
OTHER_RULES: tuple[dict[str, Any], ...] = ({"reset_rule": "once"}, {"reset_rule": "empty_units"})
OFF: dict[str, Any] = {"reset_density": None}


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for spec in one_seed(seed)]


def one_seed(seed: int) -> list[RunSpec]:
    """The cells with the paper's rule are those of `mnist`, but for the largest alphas."""
    ways: tuple[dict[str, Any], ...] = ({}, OFF)
    specs = [lenet(name, "dst", seed, alpha=alpha, **way) for name in LENETS for alpha in ALPHAS for way in ways]
    specs += [lenet(SAW_TOOTH, "dst", seed, alpha=alpha, **rule) for alpha in RULE_ALPHAS for rule in OTHER_RULES]
    recurrent: tuple[dict[str, Any], ...] = ({}, {"reset_rule": "recurrent_too"})
    specs += [lstm(name, "dst", "paper", seed, alpha=LSTM_ALPHA, **way) for name in LSTMS for way in recurrent]
    return specs
