"""Supercells for force constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

AUTO_HEIGHT = 10.0  # Å: beyond half of it, force constants are folded onto one another


def supercell_matrix(
    atoms: Atoms, supercell: str | float | Sequence[int] | ArrayLike = "auto", *, symprec: float = 1e-5
) -> NDArray[np.int64]:
    """phonopy's supercell matrix (3, 3): its columns hold the supercell's vectors in vectors of the given cell.

    Args:
        atoms: the crystal, in any cell.
        supercell: "auto": the least multiple of the conventional cell whose heights reach 10 Å, or a least height in Å
            (float), or phonopy's three integers or 3 × 3 matrix.
        symprec: Å, of the search for the conventional cell.

    Raises ValueError for anything else.
    """
    if supercell == "auto" if isinstance(supercell, str) else isinstance(supercell, (float, np.floating)):
        height = AUTO_HEIGHT if isinstance(supercell, str) else float(supercell)  # type: ignore[arg-type]
        if not 0 < height < 1e5:
            raise ValueError(f"supercell: wanted a height in Å above 0 and below 1e5, got {supercell!r}")
        conventional = _conventional(atoms, symprec)
        counts = np.ceil(height / _heights(conventional @ atoms.cell.array) - 1e-6).astype(np.int64)
        return np.ascontiguousarray((counts[:, None] * conventional).T)
    matrix: NDArray[Any]
    try:
        matrix = np.asarray(supercell)
        matrix = np.diag(matrix) if matrix.shape == (3,) else matrix
        wrong = matrix.shape != (3, 3) or matrix.dtype.kind not in "iuf" or (matrix != np.rint(matrix)).any()
    except (TypeError, ValueError):
        wrong = True
    if isinstance(supercell, (int, np.integer)):
        n = int(supercell)
        raise ValueError(f"supercell: {n} is ambiguous; write {n}.0 for a height in Å, or ({n}, {n}, {n}) for cells")
    if wrong or round(np.linalg.det(matrix)) < 1:
        raise ValueError(
            f"supercell: wanted 'auto', a height in Å, three positive integers, or a 3 × 3 matrix of integers with a "
            f"positive determinant, got {supercell!r}"
        )
    return np.rint(matrix).astype(np.int64)


def right_handed(structure: Any, supercell: Any = "auto") -> tuple[Atoms, Any]:
    """The crystal as Atoms with a right-handed cell, as phonopy wants it, and the supercell in vectors of that cell.

    The first two vectors of a left-handed cell change places; atoms stay where they are.
    """
    from ase_potnet.integrations.potnet_mlp import to_atoms

    atoms = to_atoms(structure)
    if np.linalg.det(atoms.cell.array) > 0:
        return atoms, supercell
    swapped = [1, 0, 2]
    atoms.set_cell(atoms.cell.array[swapped])
    if not isinstance(supercell, (str, float, np.floating)):
        supercell = supercell_matrix(atoms, supercell)[swapped][:, swapped]
    return atoms, supercell


def _conventional(atoms: Atoms, symprec: float) -> NDArray[np.int64]:
    """The conventional cell in vectors of the given one, as rows; the identity where that is larger or has none."""
    from phonopy.structure.symmetry import Symmetry

    from ase_potnet.integrations.potnet_mlp import to_phonopy

    dataset = Symmetry(to_phonopy(atoms), symprec=symprec).dataset
    exact = np.linalg.inv(np.asarray(dataset.transformation_matrix)).T
    rounded = np.rint(exact)
    if np.abs(exact - rounded).max() > 1e-3 or round(np.linalg.det(rounded)) < 1:
        return np.eye(3, dtype=np.int64)
    return rounded.astype(np.int64)


def _heights(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between opposite faces. (3,) Å"""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
