"""exp(-2 alpha (r - r_e)) - 2 exp(-alpha (r - r_e))."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import Potential, Primitive, require_positive
from ase_potnet.lattice.potentials.pauli import Pauli


@dataclass(frozen=True)
class Morse(Potential):
    """exp(-2 alpha (r - r_e)) - 2 exp(-alpha (r - r_e)), alpha in 1/Å, r_e in Å, well depth 1.

    P. M. Morse, Phys. Rev. 34, 57 (1929). All parts are those of two exponentials.
    """

    alpha: float
    r_e: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", require_positive("alpha", self.alpha))
        object.__setattr__(self, "r_e", require_positive("r_e", self.r_e))
        if self.alpha * self.r_e > 700:
            raise ValueError(f"alpha * r_e must be at most 700, got {self.alpha * self.r_e:g}")

    def real_space(self, r: Tensor) -> Tensor:
        decay = torch.exp(-self.alpha * (r - self.r_e))
        return decay * (decay - 2)

    def terms(self) -> tuple[tuple[float, Primitive], ...]:
        growth = math.exp(self.alpha * self.r_e)
        return ((growth * growth, Pauli(2 * self.alpha)), (-2 * growth, Pauli(self.alpha)))
