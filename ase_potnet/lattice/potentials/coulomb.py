"""1/r."""

from __future__ import annotations

from ase_potnet.lattice.potentials.inverse_power import InversePower


class Coulomb(InversePower):
    """1/r; times 14.39964548 eV Å for unit charges.

    The case p = 1/2 of InversePower, P. P. Ewald, Ann. Phys. 369, 253 (1921). In reduced units: short range
    erfc(r)/r, Fourier transform of the long range 4 pi exp(-k^2/4)/k^2, self term 2/sqrt(pi), k = 0 term -pi
    (the neutralising background).
    """

    def __init__(self) -> None:
        super().__init__(1)

    def __repr__(self) -> str:
        return "Coulomb()"
