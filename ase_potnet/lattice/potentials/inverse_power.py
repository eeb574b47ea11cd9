"""1/r^n, n = 1, 2, 3, ...: Coulomb, London and every Epstein zeta function of integer exponent."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ase_potnet.lattice.potentials.base import Primitive
from ase_potnet.lattice.special import Radial, exponential_integral, exponential_integrals


class InversePower(Primitive):
    r"""1/r^n for an integer n from 1 to 60 (p = n/2 in the literature on Epstein zeta functions).

    = 1/Gamma(p) \int_0^oo t^(p-1) exp(-t r^2) dt. For n < d, d the number of periodic directions, the lattice sum
    is the analytic continuation in n, that is with a neutralising background; at n = d it is Hadamard's finite
    part. For sources that add up to zero neither choice matters.

    Source of all parts: P. Epstein, Math. Ann. 56, 615 (1903); R. E. Crandall, "Fast evaluation of Epstein zeta
    functions" (1998); Essmann et al., J. Chem. Phys. 103, 8577 (1995), section 2.
    """

    def __init__(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, float, np.number)) or not 1 <= n <= 60 or n != int(n):
            raise ValueError(f"n must be an integer from 1 to 60, got {n!r}")
        self.n = int(n)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InversePower) and other.n == self.n

    def __hash__(self) -> int:
        return hash((InversePower, self.n))

    def __repr__(self) -> str:
        return f"InversePower({self.n})"

    @property
    def p(self) -> float:
        return self.n / 2

    @property
    def norm(self) -> float:
        return 1 / math.gamma(self.p)

    def real_space(self, r: Tensor) -> Tensor:
        """1/r^n."""
        return r ** (-self.n)

    def short_range(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        r"""\int_1^oo t^(p-1) exp(-t r^2) dt = E_p(r^2) = r^-n Gamma(p, r^2); Essmann et al., eq. 2.7."""
        return exponential_integrals(self.p, radial, n_orders)

    def complete(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        """Gamma(p) r^-n, and (-d/dr^2)^m of it: Gamma(p + m) r^-(n + 2m)."""
        value = radial.inverse ** (self.n // 2)
        if self.n % 2:
            value = value * radial.inverse_r
        values = [math.gamma(self.p) * value]
        for m in range(1, n_orders):
            values.append(values[-1] * radial.inverse * (self.p + m - 1))
        return values

    def fourier(self, k2: Tensor, alpha: Tensor | float) -> Tensor:
        r"""pi^(3/2) \int_0^1 t^(p-5/2) exp(-k^2/4t) dt = pi^(3/2) E_(3/2-p)(k^2/4); Essmann et al., eq. 2.9."""
        return math.pi**1.5 * exponential_integral((1.5 - self.p,), 0.25 * k2)[0]

    def self_term(self, alpha: Tensor | float) -> float:
        r"""\int_0^1 t^(p-1) dt = 1/p."""
        return 1 / self.p

    def background(self, alpha: Tensor | float) -> float:
        """pi^(3/2)/(p - 3/2): the plain limit for p > 3/2, the neutralising background for p < 3/2.

        At the pole p = 3/2 Hadamard's finite part, which is zero in reduced units (ln eta is added outside).
        """
        return 0.0 if self.zero_mode_is_logarithmic(3) else math.pi**1.5 / (self.p - 1.5)
