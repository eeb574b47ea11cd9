"""Pair potentials, one file each."""

from ase_potnet.lattice.potentials.base import Potential
from ase_potnet.lattice.potentials.coulomb import Coulomb
from ase_potnet.lattice.potentials.inverse_power import InversePower
from ase_potnet.lattice.potentials.lennard_jones import LennardJones
from ase_potnet.lattice.potentials.london import London
from ase_potnet.lattice.potentials.morse import Morse
from ase_potnet.lattice.potentials.pauli import Pauli
from ase_potnet.lattice.potentials.screened_coulomb import ScreenedCoulomb

__all__ = ["Coulomb", "InversePower", "LennardJones", "London", "Morse", "Pauli", "Potential", "ScreenedCoulomb"]
