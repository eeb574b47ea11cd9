"""Checks of arguments."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

LARGEST_SYMPREC = 0.5  # Å; beyond, spglib takes atoms for one another, and crashes


def is_finite(value: Any) -> bool:
    """Whether a value is a finite real number."""
    return isinstance(value, Real) and math.isfinite(float(value))
