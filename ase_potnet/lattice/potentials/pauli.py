"""exp(-alpha r)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import require_positive
from ase_potnet.lattice.potentials.screened import Screened


@dataclass(frozen=True)
class Pauli(Screened):
    r"""exp(-alpha r), Pauli repulsion, with a physical inverse length alpha in 1/Å.

    = alpha/(2 sqrt(pi)) \int_0^oo t^(-3/2) exp(-t r^2 - alpha^2/4t) dt, i.e. -d/d alpha of the screened Coulomb
    potential. Its whole Fourier transform is 8 pi alpha/(k^2+alpha^2)^2; that of the long range carries
    exp(-(k^2+alpha^2)/4) (1 + (k^2+alpha^2)/4) in reduced units. Source: alpha-derivatives of the equations of
    Salin and Caillol, J. Chem. Phys. 113, 10459 (2000).
    """

    alpha: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", require_positive("alpha", self.alpha))

    @property
    def p(self) -> float:
        return -0.5

    @property
    def norm(self) -> float:
        return self.alpha / (2 * math.sqrt(math.pi))

    def real_space(self, r: Tensor) -> Tensor:
        """exp(-alpha r)."""
        return torch.exp(-self.alpha * r)
