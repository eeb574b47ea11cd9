"""Supercells: near-cubic ones from a search over integer matrices, diagonal ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .recipe import Supercell

CANDIDATES = 400  # orientations of the ideal cube that are tried
_NEIGHBOURS = np.array([v for v in itertools.product((-1, 0, 1), repeat=3) if v > (0, 0, 0)])  # half of them, (13, 3)

Matrix = NDArray[np.integer]


def cell_counts(supercell: Supercell, n_atoms: int, max_atoms: int) -> range:
    """The numbers of cells (at least 2) that keep within the numbers of atoms; empty if there is none."""
    low, high = supercell.atoms
    return range(max(2, math.ceil(low / n_atoms)), min(high, max_atoms) // n_atoms + 1)


def draw_supercell(atoms: Atoms, supercell: Supercell, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """A random supercell. The structure has cell counts (see `cell_counts`) and a periodic direction."""
    from ase.build import make_supercell

    counts = cell_counts(supercell, len(atoms), max_atoms)
    count = int(rng.integers(counts.start, counts.stop))
    if supercell.shape == "diagonal" or not atoms.pbc.all():
        return atoms.repeat(diagonal_repeats(atoms, counts.start, count))
    return make_supercell(atoms, near_cubic_matrix(atoms.cell.array, count, rng))


def diagonal_repeats(atoms: Atoms, least: int, most: int) -> tuple[int, int, int]:
    """Repeats along the periodic cell vectors, `least` to `most` cells in all, whose shortest vector is longest."""
    lengths = atoms.cell.lengths()
    best, best_length = (1, 1, 1), -1.0
    for a in range(1, most + 1):
        for b in range(1, most // a + 1):
            for c in range(-(-least // (a * b)), most // (a * b) + 1):
                repeats = np.array([a, b, c])
                length = (repeats * lengths)[atoms.pbc].min()
                if (repeats[~atoms.pbc] == 1).all() and length > best_length + 1e-9:
                    best, best_length = (a, b, c), length
    return best


def near_cubic_matrix(cell: NDArray[np.float64], count: int, rng: np.random.Generator) -> Matrix:
    """The integer matrix P (3, 3) whose supercell P @ cell, of `count` cells, comes nearest to a cube.

    Cubes of that volume in random orientations are expressed in the cell and rounded; of the candidates with
    determinant `count`, the one whose shortest lattice vector is longest wins. The cell's own diagonal
    supercells are candidates too, so there is always one.

    Args:
        cell: (3, 3) Å
        count: number of cells, at least 1
    """
    side = (count * abs(np.linalg.det(cell))) ** (1 / 3)
    rotations = np.linalg.qr(rng.normal(size=(CANDIDATES, 3, 3)))[0]  # (n, 3, 3), up to improper ones
    rounded = np.rint(side * rotations @ np.linalg.inv(cell)).astype(np.int64)
    determinants = np.rint(np.linalg.det(rounded)).astype(np.int64)
    rounded[determinants < 0] *= -1
    matrices = np.concatenate([rounded[np.abs(determinants) == count], _diagonal_matrices(count)])
    vectors = np.einsum("ka,nab->nkb", _NEIGHBOURS, matrices @ cell)  # (n, 13, 3)
    shortest = np.sqrt((vectors**2).sum(-1)).min(-1)
    longest = np.sqrt(((matrices @ cell) ** 2).sum(-1)).max(-1)
    order = np.lexsort((longest, -np.round(shortest, 6)))  # of equals, the one with the shorter longest vector
    return np.asarray(matrices[order[0]])


def _diagonal_matrices(count: int) -> Matrix:
    """All diagonal matrices with the determinant. (n, 3, 3)"""
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    return np.array([np.diag([a, b, count // (a * b)]) for a in divisors for b in divisors if count % (a * b) == 0])
