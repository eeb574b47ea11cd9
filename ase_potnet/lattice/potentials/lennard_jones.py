"""4 [(sigma/r)^12 - (sigma/r)^6]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ase_potnet.lattice.potentials.base import Potential, Primitive, require_positive
from ase_potnet.lattice.potentials.inverse_power import InversePower
from ase_potnet.lattice.potentials.london import London


@dataclass(frozen=True)
class LennardJones(Potential):
    """4 [(sigma/r)^12 - (sigma/r)^6], sigma in Å, well depth 1.

    J. E. Lennard-Jones, Proc. Phys. Soc. 43, 461 (1931). All parts are those of 1/r^12 and 1/r^6.
    """

    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", require_positive("sigma", self.sigma))
        if not 1e-25 < self.sigma < 1e25:
            raise ValueError(f"sigma must be a length in Å whose 12th power is a number, got {self.sigma:g}")

    def real_space(self, r: Tensor) -> Tensor:
        sixth = (self.sigma / r) ** 6
        return 4 * (sixth * sixth - sixth)

    def terms(self) -> tuple[tuple[float, Primitive], ...]:
        return ((4 * self.sigma**12, InversePower(12)), (-4 * self.sigma**6, London()))
