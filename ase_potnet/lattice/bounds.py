r"""Proven bounds on what a cut-off leaves out, and the cut-offs that keep them below a tolerance.

Let f fall monotonically and let M(r) bound the number of lattice points within r of any centre. Summation by parts
gives, for the points further away than R,

    sum f(|v + n|) <= \int_R^oo -f'(r) M(r) dr = f(R) M(R) + \int_R^oo f(r) M'(r) dr.

With rho the covering radius, the Voronoi cells of those points lie within r + rho, so M(r) = c_d (r + rho)^d / V_d,
c_d the volume of the unit ball; and f(r) <= f(R) exp(-b (r - R)) with b = 2R for a mixture of Gaussians
exp(-t r^2), t >= 1, and b = alpha for exp(-alpha r). The remaining integral is elementary. The bound holds for
every v, every basis and every cut-off; reciprocal sums obey the same with y = k/2 in place of r.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT_BALL = {0: 1.0, 1: 2.0, 2: math.pi, 3: 4 * math.pi / 3}


@dataclass(frozen=True)
class MixtureTail:
    r"""Tail of sum_n factor E_q(|v + n|^2 + shift) over a lattice, E_q(x) = \int_1^oo u^(q-1) exp(-x u) du.

    factor (m, S), q (m, 1), shift (m, S), covering (m, S) and volume (m, S): covering radius and cell volume of the
    d-dimensional lattice. Rows are sums of different potentials, real and reciprocal ones alike.
    """

    factor: Array
    q: Array
    shift: Array
    covering: Array
    volume: Array
    d: int

    def bound(self, cutoff: Array) -> Array:
        """Proven bound on the terms with |v + n| > cutoff, for cutoff^2 + shift > q - 1. (m, S)

        For q <= 1 the power of u is at most 1; for q > 1, u^(q-1) <= exp((q-1)(u-1)).
        """
        x = cutoff * cutoff + self.shift
        value = self.factor * np.exp(-x) / (x - np.maximum(self.q - 1, 0.0))
        return lattice_tail(value, 2 * cutoff, cutoff, self.covering, self.volume, self.d)

    def solve(self, tolerance: Array) -> Array:
        """Cut-offs just large enough that the proven tail is at most ``tolerance`` (S,). (m, S)"""
        lowest = np.sqrt(np.maximum(self.q, 0.0) + 1.5) + np.zeros_like(self.factor)
        goal = np.log(tolerance)
        cutoff = np.maximum(np.sqrt(np.maximum(np.log(self.factor + 1e-300) - goal, 0.0) + 3.0), lowest)
        for _ in range(3):
            excess = np.log(self.bound(cutoff) + 1e-300) - goal
            cutoff = np.maximum(cutoff + excess / (2.4 * cutoff), lowest)
        return widen(self.bound, cutoff, tolerance)


def widen(bound: Callable[[Array], Array], cutoff: Array, tolerance: Array) -> Array:
    """Move cut-offs outwards until the bound itself holds."""
    for _ in range(2000):
        short = bound(cutoff) > tolerance
        if not short.any():
            return cutoff
        cutoff = np.where(short, cutoff * 1.005, cutoff)
    raise ArithmeticError("no cut-off found for the requested tolerance")  # pragma: no cover


def lattice_tail(value: Array, decay: Array, cutoff: Array, covering: Array, volume: Array, d: int) -> Array:
    """Bound on the sum over lattice points beyond ``cutoff`` of a function <= value * exp(-decay (r - cutoff)).

    covering and volume: covering radius and cell volume of the d-dimensional lattice. All arrays broadcast.
    """
    reach = cutoff + covering
    step = 1 / decay
    total = np.ones_like(reach)
    for j in range(1, d + 1):
        # reach^d + d/b (reach^(d-1) + (d-1)/b (...)), built from the inside
        total = reach**j + j * step * total
    return value * total * (UNIT_BALL[d] / volume)


def exponential_cutoff(
    alpha: float, power: float, factor: Array, tolerance: Array, covering: Array, volume: Array, d: int
) -> Array:
    """Cut-off of a plain lattice sum of factor exp(-alpha r)/r^power whose proven tail is at most ``tolerance``."""

    def bound(cutoff: Array) -> Array:
        value = factor * np.exp(-alpha * cutoff) * cutoff ** (-power)
        return lattice_tail(value, np.full_like(cutoff, alpha), cutoff, covering, volume, d)

    goal = np.log(tolerance)
    cutoff = np.maximum(-goal / alpha, 1 / alpha)
    for _ in range(3):
        cutoff = np.maximum(cutoff + 1.02 * (np.log(bound(cutoff)) - goal) / alpha, 1 / alpha)
    return widen(bound, cutoff, tolerance)
