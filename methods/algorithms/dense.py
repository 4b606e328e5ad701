"""No sparsity at all: the baseline."""

from __future__ import annotations

from methods.base import Method


class Dense(Method):
    """Keeps every weight.

    The dense baseline of every table. It has no equations and no hyperparameters. Departures: none.
    """

    name = "dense"
    version = 1
    reference = "arXiv:2005.06870"
    density_promise = "dense"
