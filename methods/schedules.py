"""Pure functions of the step, which is the only clock."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?)")


def steps_of(duration: int | str, *, steps_per_epoch: int) -> int:
    """A duration in steps, at least 1.

    duration: a number of steps, or `100 steps`, `1 epoch`, `0.5 epochs`. Raises ValueError for
    anything else.
    """
    if isinstance(duration, int) and not isinstance(duration, bool) and duration >= 1:
        return duration
    match = _DURATION.fullmatch(duration.strip()) if isinstance(duration, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError(f"duration {duration!r} is not a number of steps, '100 steps' or '1 epoch'")
    unit = steps_per_epoch if match[2].startswith("epoch") else 1
    return max(1, round(float(match[1]) * unit))


def every(step: int, period_steps: int) -> bool:
    """True after each full period: at step period, 2 * period, …"""
    return step > 0 and step % period_steps == 0


def cubic(step: int, *, begin: int, end: int, start: float, final: float) -> float:
    """From `start` at step `begin` to `final` at step `end`, fast at first; constant outside.

    final + (start - final) * (1 - progress)^3 (Zhu and Gupta, arXiv:1710.01878, eq. 1).
    """
    if step >= end:  # at `begin` too, where both are one step
        return final
    progress = max((step - begin) / max(1, end - begin), 0.0)
    return final + (start - final) * (1 - progress) ** 3


def cosine(step: int, total_steps: int, *, start: float, end: float = 0.0) -> float:
    """Half a cosine from `start` at step 0 to `end` at total_steps; `end` after that."""
    progress = min(step / total_steps, 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
