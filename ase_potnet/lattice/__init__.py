"""Infinite lattice sums of pair potentials: exact to a tolerance, differentiable, batched."""

from ase_potnet.lattice.epstein import epstein_zeta
from ase_potnet.lattice.pair_sums import pair_sums
from ase_potnet.lattice.potentials import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    Potential,
    ScreenedCoulomb,
)
from ase_potnet.lattice.site_sums import site_sums
from ase_potnet.lattice.structures import complete_pairs

__all__ = [
    "Coulomb",
    "InversePower",
    "LennardJones",
    "London",
    "Morse",
    "Pauli",
    "Potential",
    "ScreenedCoulomb",
    "complete_pairs",
    "epstein_zeta",
    "pair_sums",
    "site_sums",
]
