"""What can be said of the error of a sum: whether a tolerance is within reach, and a proven bound."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.lattice.plan import Plan, constants_of, prefactors
from ase_potnet.lattice.potentials.base import Decomposition

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


def zero_mode_bounds(plan: Plan, decomposition: Decomposition) -> Array:
    """Bounds on the k = 0 terms of the split primitives, factor pi^(d/2)/V left out. Reduced units. (n_split, S)

    Of a power law 1/|p - d/2| <= 2; of a screened potential E_q(x) <= Gamma(q) x^-q with q = d/2 - p, x = alpha^2/4.
    """
    bounds = np.full((len(plan.split), len(plan.scale)), 2.0)
    for row, k in zip(bounds, plan.split, strict=True):
        primitive = decomposition.primitives[k]
        if primitive.alpha > 0:
            q = max(0.5 * plan.d - primitive.p, 0.5)
            row[:] = math.gamma(q) * (0.5 * primitive.alpha / plan.scale) ** (-2 * q)
    return bounds


def rounding_error(plan: Plan, decomposition: Decomposition, dtype: torch.dtype) -> Array:
    """Estimated rounding error of the terms every sum contains: self term and k = 0. (S,), physical units"""
    split, epsilon = plan.split, torch.finfo(dtype).eps
    if not split:
        return np.zeros(len(plan.index))
    own = constants_of(decomposition).own[split]  # (n_split, 1)
    zero = math.pi ** (0.5 * plan.d) / plan.volume * zero_mode_bounds(plan, decomposition)
    largest: Array = (prefactors(plan, decomposition)[split] * (own + zero)).max(axis=0)
    return 4 * epsilon * largest


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
