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
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUMBERS: Any = SimpleNamespace(sqrt=math.sqrt, log=math.log, maximum=max, all=bool)
"""What the cut-offs below need of numpy, for single numbers instead of arrays."""

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
        return gaussian_cutoff(self.factor, self.q, self.shift, self.covering, self.volume, self.d, tolerance)


def gaussian_cutoff(
    factor: Any, q: Any, shift: Any, covering: Any, volume: Any, d: int, tolerance: Any, xp: Any = np
) -> Any:
    """Cut-off just large enough that the tail of ``MixtureTail`` is at most ``tolerance``.

    Arrays, or with NUMBERS single numbers.
    """
    constant = xp.log(factor * (UNIT_BALL[d] / volume) / tolerance + 1e-300) - shift
    offset = shift - xp.maximum(q - 1, 0.0)
    lowest = xp.maximum(q, 0.0) + 1.5

    def required(x: Any) -> Any:
        # bound(cutoff) <= tolerance, solved for the x = cutoff^2 of its exponential
        cutoff = xp.sqrt(x)
        points = _points_factor(0.5 / cutoff, cutoff + covering)
        return xp.maximum(constant + d * xp.log(points) - xp.log(x + offset), lowest)

    return xp.sqrt(_settle(required, xp.maximum(constant + 3.0, lowest), xp))


def _settle(required: Callable[[Any], Any], start: Any, xp: Any) -> Any:
    """Values x >= required(x) close to the fixed point of a slowly varying function: checked, not only iterated."""
    x = 1.0005 * required(required(start))
    for _ in range(1000):
        need = required(x)
        if xp.all(need <= x):
            return x
        x = 1.0005 * xp.maximum(x, need)
    raise ValueError("potentials: no cut-off reaches the tolerance; are their values too large?")  # pragma: no cover


def _points_factor(step: Any, reach: Any) -> Any:
    """The d-th root of an upper bound on reach^d + d step reach^(d-1) + d (d-1) step^2 reach^(d-2) + ...

    With step < reach that sum is at most (reach / (1 - step/reach))^d, by comparing the powers of step/reach.
    """
    return reach * reach / (reach - step)


def lattice_tail(value: Array, decay: Array, cutoff: Array, covering: Array, volume: Array, d: int) -> Array:
    """Bound on the sum over lattice points beyond ``cutoff`` of a function <= value * exp(-decay (r - cutoff)).

    covering and volume: covering radius and cell volume of the d-dimensional lattice; decay * cutoff > 1/2. All
    arrays broadcast.
    """
    # f(R) M(R) + d f(R) \int (r + rho)^(d-1) exp(-b (r - R)) dr, integrated by parts
    return value * _points_factor(1 / decay, cutoff + covering) ** d * (UNIT_BALL[d] / volume)


def exponential_cutoff(
    alpha: float, power: float, factor: float, tolerance: Any, covering: Any, volume: Any, d: int, xp: Any = np
) -> Any:
    """Cut-off of a plain lattice sum of factor exp(-alpha r)/r^power whose proven tail is at most ``tolerance``.

    Arrays, or with NUMBERS single numbers.
    """
    constant = xp.log(factor * (UNIT_BALL[d] / volume) / tolerance)

    def required(cutoff: Any) -> Any:
        # lattice_tail(factor exp(-alpha cutoff)/cutoff^power) <= tolerance, solved for the cutoff of the exponential
        points = _points_factor(1 / alpha, cutoff + covering)
        return xp.maximum((constant + d * xp.log(points) - power * xp.log(cutoff)) / alpha, 1 / alpha)

    return _settle(required, xp.maximum(-xp.log(tolerance), 1.0) / alpha, xp)
