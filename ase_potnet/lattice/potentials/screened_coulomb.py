"""exp(-alpha r)/r."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import require_positive
from ase_potnet.lattice.potentials.screened import Screened


@dataclass(frozen=True)
class ScreenedCoulomb(Screened):
    r"""exp(-alpha r)/r, the Yukawa potential, with a physical inverse length alpha in 1/Å.

    = 1/sqrt(pi) \int_0^oo t^(-1/2) exp(-t r^2 - alpha^2/4t) dt. Its whole Fourier transform is
    4 pi/(k^2+alpha^2); that of the long range carries exp(-(k^2+alpha^2)/4) in reduced units.
    Source: G. Salin and J.-M. Caillol, J. Chem. Phys. 113, 10459 (2000), eqs. 2.6 to 2.10.
    """

    alpha: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", require_positive("alpha", self.alpha))

    @property
    def p(self) -> float:
        return 0.5

    @property
    def norm(self) -> float:
        return 1 / math.sqrt(math.pi)

    def real_space(self, r: Tensor) -> Tensor:
        """exp(-alpha r)/r."""
        return torch.exp(-self.alpha * r) / r
