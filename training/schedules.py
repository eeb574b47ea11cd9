"""Learning rate as a function of the progress of the training."""

from __future__ import annotations

import math
from typing import Literal

ScheduleKind = Literal["one-cycle", "cosine", "constant"]
_ONE_CYCLE_START = 1 / 25  # of the highest learning rate


def rate_factor(kind: ScheduleKind, progress: float, *, warmup: float, final: float) -> float:
    """Learning rate over the highest one.

    Args:
        kind: "one-cycle": half a cosine up from 1/25, half a cosine down to final; "cosine": straight up from 0, half
            a cosine down to final; "constant": straight up, then 1.
        progress: 0 at the start, 1 at the end.
        warmup: progress at which the highest rate is reached.
        final: factor at the end.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        if kind == "one-cycle":
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * _half_cosine(progress / warmup)
        return max(progress / warmup, 1e-3)
    if kind == "constant":
        return 1.0
    return 1 + (final - 1) * _half_cosine((progress - warmup) / max(1 - warmup, 1e-9))


def weight_at(weight: float | tuple[float, float], progress: float) -> float:
    """A weight that stays, or goes linearly from the first to the second value."""
    if isinstance(weight, tuple):
        first, last = weight
        return first + (last - first) * min(max(progress, 0.0), 1.0)
    return weight


def _half_cosine(x: float) -> float:
    """From 0 to 1, level at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * x)
