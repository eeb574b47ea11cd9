"""What can be said of the error of a sum: whether a tolerance is within reach, and a proven bound."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.lattice.plan import Plan, prefactors
from ase_potnet.lattice.potentials.base import Decomposition, Primitive

Array = NDArray[np.float64]


def read_tolerance(tolerance: float | None, dtype: torch.dtype) -> float:
    """The tolerance as a float; None for what suits the dtype. Raises ValueError."""
    if tolerance is None:
        return 1e-5 if dtype == torch.float32 else 1e-11
    return check_tolerance(tolerance)


def check_tolerance(tolerance: float) -> float:
    """The tolerance as a float. Raises ValueError."""
    try:
        value = float(tolerance)
    except (TypeError, ValueError):
        raise ValueError(f"tolerance must be a positive number, got {tolerance!r}") from None
    if not (math.isfinite(value) and 0 < value < 1e6):
        raise ValueError(f"tolerance must be a positive number, got {tolerance!r}")
    return value


def zero_mode_bound(primitive: Primitive, d: int, scale: Array) -> Array | float:
    """Bound on the k = 0 term of a split primitive, factor pi^(d/2)/V left out. Reduced units. scale (S,)

    Of a power law 1/|p - d/2| <= 2; of a screened potential E_q(x) <= Gamma(q) x^-q with q = d/2 - p, x = alpha^2/4.
    """
    if primitive.alpha == 0:
        return 2.0
    q = max(0.5 * d - primitive.p, 0.5)
    bound: Array = math.gamma(q) * (0.5 * primitive.alpha / scale) ** (-2 * q)
    return bound


def rounding_error(plan: Plan, decomposition: Decomposition, dtype: torch.dtype) -> Array:
    """Estimated rounding error of the terms every sum contains: self term and k = 0. (S,), physical units"""
    largest = np.zeros(len(plan.index))
    factors, unit = prefactors(plan, decomposition), math.pi ** (0.5 * plan.d) / plan.volume
    for k in plan.split:
        primitive = decomposition.primitives[k]
        own = 1 / primitive.p if primitive.alpha == 0 else 1.0
        zero = unit * zero_mode_bound(primitive, plan.d, plan.scale)
        largest = np.maximum(largest, factors[k] * (own + zero))
    return 4 * float(torch.finfo(dtype).eps) * largest


@lru_cache(maxsize=8)
def check_reachable(plan: Plan, decomposition: Decomposition, dtype: torch.dtype) -> None:
    """Raises ValueError where rounding alone exceeds the tolerance."""
    rounding = rounding_error(plan, decomposition, dtype)
    floor = np.maximum(rounding, 0.25 * torch.finfo(dtype).eps)
    worst = int(np.argmax(floor / plan.tolerance))
    if floor[worst] > plan.tolerance[worst]:
        _ = plan.images, plan.waves  # whose error, a cell too thin to sum over, goes first
        hint = " or use float64" if dtype == torch.float32 else ""
        raise ValueError(
            f"tolerance {plan.tolerance[worst]:.1e} is below what {dtype} can reach for structure "
            f"{plan.index[worst]} (about {floor[worst]:.1e}); raise it{hint}"
        )
