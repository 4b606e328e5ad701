"""Warnings for a training that ends before its method has done its work."""

from __future__ import annotations

import warnings

SLACK = 1.05  # times the density that a method promises: whole units and rounding keep a little more


def warn_where_idle(method: str) -> None:
    """Warn, when a model is finalized, that its optimizer stepped and the method never did."""
    _warn(
        f"the optimizer stepped, but attached.step() was never called, so {method} did nothing in this "
        "training: call attached.step() in place of optimizer.step()"
    )


def warn_where_unbound(method: str) -> None:
    """Warn, when a model is finalized, that it has gradients and the method never did a step."""
    _warn(
        f"the model has gradients, but attached.step() was never called, so {method} did nothing in this "
        "training: call attached.bind(optimizer), then attached.step() in place of optimizer.step()"
    )


def warn_where_early(method: str, step: int, total_steps: int, *, density: float, promised: float) -> None:
    """Warn, when a model is finalized, that its density is not the one promised for the end.

    density, promised: shares of the weights, in [0, 1].
    """
    if density > SLACK * promised:
        if step >= total_steps:
            _warn(
                f"{method} keeps {density:.1%} of the weights at the end, and not {promised:.1%}: layers that are "
                "frozen after attach keep their masks. Exclude them, or freeze them before"
            )
            return
        _warn(
            f"the training ended after {step:,} of {total_steps:,} steps: {method} keeps {density:.1%} of the "
            f"weights then, and {promised:.1%} at the end. Train to the end, or attach with fewer total_steps"
        )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)  # the caller of finalize
