"""The space group of a crystal as it relaxes: projections that keep it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]
_MOST_ATOMS = 1000  # beyond, the crystal is left as it is


@dataclass(frozen=True)
class Symmetry:
    """Operations of a crystal of N atoms.

    rotations: (S, 3, 3) of Cartesian column vectors
    images: (S, N) atom that operation s takes to atom i
    """

    rotations: Array
    images: NDArray[np.int64]

    def vectors(self, vectors: Array) -> Array:
        """The symmetric part of vectors of the atoms. (N, 3) -> (N, 3)"""
        turned = vectors[self.images] @ self.rotations.transpose(0, 2, 1)  # (S, N, 3)
        return np.asarray(turned.mean(0))

    def tensor(self, tensor: Array) -> Array:
        """The symmetric part of a tensor of the crystal. (3, 3) -> (3, 3)"""
        return np.asarray((self.rotations @ tensor @ self.rotations.transpose(0, 2, 1)).mean(0))


def make_symmetric(atoms: Atoms, symprec: float) -> tuple[Atoms, Symmetry | None]:
    """The crystal with the symmetry that it has to within symprec (Å) made exact, and that symmetry.

    None for a crystal without symmetry, with more than 1,000 atoms, or one that spglib cannot deal with.
    """
    if len(atoms) > _MOST_ATOMS or not atoms.pbc.all():
        return atoms, None
    import spglib

    cell, scaled = atoms.cell.array, atoms.get_scaled_positions(wrap=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's remarks on how it reports errors
        try:
            found = spglib.get_symmetry((cell, scaled, atoms.numbers), symprec=symprec)
        except Exception:  # spglib's own kinds
            found = None
    if found is None or len(found["rotations"]) < 2:
        return atoms, None
    turns, shifts = found["rotations"].astype(np.float64), found["translations"]
    images, symmetric = _average(scaled, atoms.numbers, turns, shifts)
    if images is None:
        return atoms, None
    result = atoms.copy()
    result.set_cell(_symmetric_cell(cell, turns), scale_atoms=False)
    result.set_scaled_positions(symmetric)
    basis = result.cell.array.T
    return result, Symmetry(basis @ turns @ np.linalg.inv(basis), images)


def standard_frame(atoms: Atoms, symprec: float = 0.01) -> Atoms:
    """The crystal turned to the axes of its conventional cell: a along x, b in the xy plane.

    Axes of tensors are then those of textbooks, however the cell was chosen and turned. Source of the settings: spglib
    (A. Togo et al., Sci. Technol. Adv. Mater. Meth. 4, 2384822 (2024)). As it was where spglib finds none.
    """
    import spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(wrap=False), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's remarks on how it reports errors
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except Exception:  # spglib's own kinds
            found = None
    result = atoms.copy()
    if found is not None:
        u, _, v = np.linalg.svd(found.std_rotation_matrix)  # of a lattice that was made symmetric, not quite a rotation
        result.set_cell(atoms.cell.array @ (u @ v).T, scale_atoms=True)
    return result


def _average(
    scaled: Array, numbers: NDArray[np.int64], turns: Array, shifts: Array
) -> tuple[NDArray[np.int64] | None, Array]:
    """Atom that each operation takes to atom i, and scaled positions averaged over the operations."""
    images = np.empty((len(turns), len(scaled)), dtype=np.int64)
    total = np.zeros_like(scaled)
    different = numbers[:, None] != numbers[None, :]
    for s, (turn, shift) in enumerate(zip(turns, shifts, strict=True)):
        moved = scaled @ turn.T + shift
        offsets = moved[None, :] - scaled[:, None]  # [i, j]: where j goes, seen from i
        offsets -= np.rint(offsets)
        distance = (offsets * offsets).sum(2)
        distance[different] = np.inf
        source = distance.argmin(1)
        if len(set(source.tolist())) < len(source):
            return None, scaled
        images[s] = source
        total += offsets[np.arange(len(source)), source]
    return images, scaled + total / len(turns)


def _symmetric_cell(cell: Array, turns: Array) -> Array:
    """The cell with its metric averaged over the operations, oriented as it was."""
    metric = cell @ cell.T
    average = (turns.transpose(0, 2, 1) @ metric @ turns).mean(0)
    rows = np.linalg.cholesky(average)
    u, _, v = np.linalg.svd(rows.T @ cell)  # the rotation that brings them nearest to the old ones
    return np.asarray(rows @ u @ v)
