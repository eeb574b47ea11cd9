"""Structures of many kinds, and their edges by independent searches."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

ALL_PBC = tuple(itertools.product((True, False), repeat=3))


def pbc_id(pbc) -> str:
    return "".join("FT"[periodic] for periodic in pbc)


def random_crystal(seed: int, n_atoms: int = 5, pbc=True) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3, 5, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    scaled = rng.uniform(0, 1, (n_atoms, 3))
    return Atoms(numbers=rng.integers(1, 90, n_atoms), scaled_positions=scaled, cell=cell, pbc=pbc)


def odd_cells() -> dict[str, Atoms]:
    """One structure for each way in which a neighbour search can go wrong."""
    skewed = random_crystal(1)
    skewed.set_cell(np.array([[1, 0, 0], [4, 1, 0], [-3, 5, 1]]) @ skewed.cell.array)
    left = random_crystal(2)
    left.set_cell(left.cell.array[[1, 0, 2]])
    long = random_crystal(3, 8)
    long.set_cell(long.cell.array * [[1], [1], [30]], scale_atoms=True)
    outside = random_crystal(4)
    outside.positions += np.array([[7, -9, 3], [0, 0, 0], [-40, 2, 11], [0, 55, 0], [1, 1, -23]]) @ outside.cell.array
    return {
        "skewed": skewed,
        "left-handed": left,
        "c/a = 30": long,
        "outside": outside,
        "tiny": Atoms("H", cell=np.diag([0.7, 0.9, 1.1]), pbc=True),
        "one atom": bulk("Cu"),
        "molecule": molecule("CH3CH2OH"),
        "zero cell vector": Atoms(
            "CO2", positions=[[0, 0, 0], [0, 0, 1.1], [0, 0, -1.1]], cell=[3, 4, 0], pbc=[1, 1, 0]
        ),
        "large": bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (5, 5, 5),
    }


def edges_by_ase(atoms: Atoms, cutoff: float | dict[tuple[str, str], float]) -> np.ndarray:
    """Rows receiver, sender, image, sorted. (E, 5)"""
    full = atoms.copy()
    if not full.cell.array[full.pbc].any():
        full.cell = np.zeros((3, 3))
    i, j, image = neighbor_list("ijS", full, cutoff)
    return sort_rows(np.column_stack((i, j, image)))


def sort_rows(rows: np.ndarray) -> np.ndarray:
    rows = np.rint(rows).astype(int)
    return rows[np.lexsort(rows.T[::-1])]
