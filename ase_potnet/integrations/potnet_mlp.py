"""The potential in the ``mlp`` slot of phonopy and phono3py, and for SSCHA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import nn

from ase_potnet.evaluation import Result, evaluate, load_potential
from ase_potnet.readers.structures import set_isotopes

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms

Array = NDArray[np.float64]
_VOIGT = (0, 1, 2, 5, 3, 4)  # ASE's xx yy zz yz xz xy in phonopy's order xx yy zz xy yz zx


class PotNetMLP:
    """What ``ph.mlp`` wants: ``ph.mlp = PotNetMLP(); ph.evaluate_mlp()``.

    Args:
        model: packaged name, model folder, or a loaded model (which is copied).
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        dtype: "float64"; "float32" is too coarse for displacements of 0.01 Å.
        batch_size: supercells that are calculated together; "auto": by their sizes.
        progress: called with the number of supercells done and of all.

    Raises ValueError naming model, device or dtype.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = "default",
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "float64",
        batch_size: int | Literal["auto"] = "auto",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model = load_potential(model, device=device, dtype=dtype)
        self.device, self.dtype, self.batch_size, self.progress = device, dtype, batch_size, progress

    def evaluate(self, supercells: Sequence[PhonopyAtoms | None]) -> tuple[Array, Array, Array]:
        """Energies (n,) in eV, forces (n, N, 3) in eV/Å, stresses (n, 6) in eV/Å^3 of n supercells of N atoms.

        Stresses are (1/V) dE/dε, positive under tension as in ASE, in phonopy's order xx yy zz xy yz zx.
        phono3py leaves out pairs beyond its cut-off, as None: their forces are zero, energy and stress NaN.

        Raises:
            ValueError: a supercell that the model cannot take, with its number; supercells of unequal size.
        """
        present = [cell for cell in supercells if cell is not None]
        if len({len(cell) for cell in present}) > 1:
            raise ValueError("supercells: wanted the same number of atoms in all of them")
        n_atoms = len(present[0]) if present else 0
        energies, stresses = np.full(len(supercells), np.nan), np.full((len(supercells), 6), np.nan)
        forces = np.zeros((len(supercells), n_atoms, 3))
        places = [place for place, cell in enumerate(supercells) if cell is not None]
        for done, (place, result) in enumerate(zip(places, self._found(present), strict=True), start=1):
            energies[place] = result.energy
            forces[place], stresses[place] = result.forces, np.asarray(result.stress)[list(_VOIGT)]
            if self.progress is not None:
                self.progress(done, len(places))
        return energies, forces, stresses

    def results(self, cells: Sequence[PhonopyAtoms], *, forces: bool = True, stress: bool = True) -> list[Result]:
        """Energy, forces and stress (ASE's order) of cells of any size."""
        return list(self._found(cells, forces=forces, stress=stress))

    def _found(self, cells: Sequence[PhonopyAtoms], *, forces: bool = True, stress: bool = True) -> Iterator[Result]:
        """The same as they come."""
        structures = [(cell.numbers.astype(np.int64), cell.positions, cell.cell, True) for cell in cells]
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "batch_size": self.batch_size}
        return evaluate(structures, self.model, forces=forces, stress=stress, **options) if structures else iter(())


def to_phonopy(atoms: Atoms) -> PhonopyAtoms:
    """ASE Atoms as a cell of phonopy; masses that were set are kept, ASE's stand in for those phonopy does not have."""
    from phonopy.structure.atomic_data import get_atomic_data
    from phonopy.structure.atoms import PhonopyAtoms

    masses: list[float] = atoms.get_masses().tolist()
    if not atoms.has("masses"):
        known = [get_atomic_data().atom_data[number][3] for number in atoms.numbers]
        masses = [other if mass is None else mass for mass, other in zip(known, masses, strict=True)]
    return PhonopyAtoms(
        symbols=list(atoms.symbols),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        masses=masses,
    )


def to_atoms(structure: Any) -> Atoms:
    """A crystal as ASE Atoms without calculator and constraints: ASE Atoms, a pymatgen Structure, a phonopy cell.

    Of ASE Atoms everything else is kept: masses, tags, magnetic moments, info, ...

    Raises ValueError unless it is periodic in three directions and its values are finite.
    """
    from ase_potnet.graph import batch_structures

    masses, species = None, []
    if hasattr(structure, "scaled_positions") and hasattr(structure, "magnetic_moments"):
        masses = structure.masses
        structure = (np.asarray(structure.numbers, dtype=np.int64), structure.positions, structure.cell, True)
    try:
        batch = batch_structures([structure])
    except ValueError as error:
        raise ValueError(str(error).replace("structures[0]", "structure")) from error
    if not bool(batch.pbc.all()):
        raise ValueError(f"structure: phonons want three periodic directions, got pbc={batch.pbc[0].tolist()}")
    if isinstance(structure, Atoms):
        bare = structure.copy()  # without its calculator
        bare.set_constraint()
        return bare
    if hasattr(structure, "species"):  # of pymatgen, which knows D and T
        species = [getattr(one, "element", one).name for one in structure.species]
    atoms = Atoms(batch.numbers.numpy(), positions=batch.positions.numpy(), cell=batch.cell[0].numpy(), pbc=True)
    set_isotopes(atoms, species)
    if masses is not None:
        atoms.set_masses(masses)
    return atoms
