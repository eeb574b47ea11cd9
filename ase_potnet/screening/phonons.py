"""Whether a crystal is stable against its phonons."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from ase_potnet.screening.elasticity import require_periodic
from ase_potnet.screening.engine import Ask, Steps
from ase_potnet.screening.failures import BAD_STRUCTURE, ScreeningFailure
from ase_potnet.screening.tasks import Crystal


@dataclass(frozen=True)
class PhononStability:
    """Phonon frequencies at the wave vectors of a supercell, where they are exact, from finite displacements.

    Relax first. The packages phonopy and symfc are needed.

    height: least height of the supercell, Å
    distance: of the displacements, Å
    tolerance: modes below minus this count as unstable, THz
    most_atoms: a supercell of more is a failure
    """

    height: float = 8.0
    distance: float = 0.02
    tolerance: float = 0.3
    most_atoms: int = 1000
    name: ClassVar[str] = "phonon-stability"
    columns: ClassVar[Mapping[str, str]] = {
        "phonon_stable": "",
        "lowest_frequency": "THz",
        "unstable_modes": "",
        "phonon_atoms": "",
    }

    def __post_init__(self) -> None:
        for package in ("phonopy", "symfc"):  # missed before the first crystal
            import_module(package)
        if not (self.height > 0 and self.distance > 0 and self.tolerance >= 0):
            raise ValueError("phonon-stability.height, distance, tolerance: wanted positive numbers")

    def run(self, crystal: Crystal) -> Steps:
        """One question of all displaced supercells."""
        require_periodic(crystal.atoms, self.name)
        ph = self._displaced(crystal)
        cells = [cell for cell in ph.supercells_with_displacements if cell is not None]
        structures = [(np.asarray(cell.numbers, np.int64), cell.positions, cell.cell, True) for cell in cells]
        results = yield Ask(structures, stress=False)
        ph.forces = np.array([result.forces - result.forces.mean(0) for result in results])
        ph.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
        ph.symmetrize_force_constants(show_drift=False, use_symfc_projector=True)
        frequencies = _exact_frequencies(ph)
        return {
            "phonon_stable": bool(frequencies.min() >= -self.tolerance),
            "lowest_frequency": float(frequencies.min()),
            "unstable_modes": int((frequencies < -self.tolerance).sum()),
            "phonon_atoms": len(ph.supercell),
        }

    def _displaced(self, crystal: Crystal) -> Any:
        from phonopy import Phonopy
        from phonopy.structure.cells import guess_primitive_matrix

        from ase_potnet.integrations.potnet_mlp import to_phonopy
        from ase_potnet.integrations.supercells import right_handed, supercell_matrix
        from ase_potnet.screening.symmetry import make_symmetric

        atoms, _ = make_symmetric(crystal.atoms.copy(), 0.01)  # float32 has rounded the atoms
        atoms, _ = right_handed(atoms)
        cell, matrix = to_phonopy(atoms), supercell_matrix(atoms, float(self.height))
        size = round(abs(float(np.linalg.det(matrix)))) * len(atoms)
        if size > self.most_atoms:
            raise ScreeningFailure(
                BAD_STRUCTURE, f"a supercell of {size} atoms; phonon-stability.most_atoms allows more"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ph = Phonopy(cell, supercell_matrix=matrix, primitive_matrix=guess_primitive_matrix(cell))
            ph.generate_displacements(distance=self.distance)
        return ph


def _exact_frequencies(ph: Any) -> np.ndarray[Any, Any]:
    """Frequencies (THz) at the wave vectors of the supercell, the three translations at Γ left out."""
    from ase_potnet.integrations.harmonic import commensurate_points

    points = commensurate_points(ph)
    frequencies = ph.run_qpoints(points).frequencies
    rows = []
    for point, row in zip(points, frequencies, strict=True):
        at_gamma = np.abs(point - np.rint(point)).max() < 1e-6
        order = np.argsort(np.abs(row))
        rows.append(np.sort(row[order[3:]]) if at_gamma else row)
    found = np.concatenate(rows)
    return found if len(found) else np.zeros(1)  # one atom, one wave vector
