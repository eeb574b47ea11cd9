"""What exp(-alpha r) and exp(-alpha r)/r share: mixtures with a factor exp(-alpha^2/4t)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import Primitive
from ase_potnet.lattice.special import Radial, exponential_integral, screened_complete, screened_integrals


class Screened(Primitive):
    r"""c \int_0^oo t^(p-1) exp(-t r^2 - alpha^2/4t) dt for p = -1/2 or 1/2, in reduced units."""

    def short_range(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        return screened_integrals(self.p, alpha, radial, n_orders)

    def complete(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        return screened_complete(self.p, alpha, radial, n_orders)

    def fourier(self, k2: Tensor, alpha: Tensor | float) -> Tensor:
        r"""pi^(3/2) \int_0^1 t^(p-5/2) exp(-(k^2+alpha^2)/4t) dt = pi^(3/2) E_(3/2-p)((k^2+alpha^2)/4)."""
        return math.pi**1.5 * exponential_integral((1.5 - self.p,), 0.25 * (k2 + alpha * alpha))[0]

    def self_term(self, alpha: Tensor | float) -> Tensor:
        r"""\int_0^1 t^(p-1) exp(-alpha^2/4t) dt = E_(-p)(alpha^2/4)."""
        return exponential_integral((-self.p,), torch.as_tensor(0.25 * alpha * alpha))[0]

    def background(self, alpha: Tensor | float) -> Tensor:
        """The Fourier transform at k = 0, finite for alpha > 0."""
        return self.fourier(torch.as_tensor(0.0 * alpha), alpha)
