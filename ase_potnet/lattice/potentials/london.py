"""1/r^6."""

from __future__ import annotations

from ase_potnet.lattice.potentials.inverse_power import InversePower


class London(InversePower):
    """1/r^6, London's dispersion interaction without its coefficient.

    The case p = 3 of InversePower, D. E. Williams, Acta Cryst. A27, 452 (1971). In reduced units, x = k^2/4:
    short range exp(-r^2)(1 + r^2 + r^4/2)/r^6, Fourier transform of the long range
    pi^(3/2)/3 [(1 - 2x) exp(-x) + 2 sqrt(pi) x^(3/2) erfc(sqrt(x))], self term 1/6, k = 0 term pi^(3/2)/3.
    """

    def __init__(self) -> None:
        super().__init__(6)

    def __repr__(self) -> str:
        return "London()"
