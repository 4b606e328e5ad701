"""The exhibits that the paper lacks, each in a module of its own."""

from __future__ import annotations

from analysis import alphas, compact, lstm_counting, pairs, patterns, tradeoffs, training_cost
from analysis.exhibit import Maker, Results

MODULES = (patterns, tradeoffs, pairs, compact, alphas, lstm_counting, training_cost)


def ours(results: Results) -> dict[str, Maker]:
    """name -> what writes it."""
    return {name: maker for module in MODULES for name, maker in module.makers(results).items()}
