"""Free atoms among the frames: they give energies, and are nothing to train on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.graph import local_edges

from .arrays import Floats, StructureArrays

_FREE = 6.0  # Å, between an atom and its images; in crystals of one atom a cell at most 5.5


def free_atoms(arrays: StructureArrays) -> NDArray[np.bool_]:
    """Which structures with a known energy are a free atom, farther than 6 Å from its images. (S,)"""
    free = np.zeros(len(arrays), dtype=bool)
    alone = np.flatnonzero((arrays.n_atoms == 1) & np.isfinite(arrays.values["energy"]))
    if len(alone):
        near = local_edges(arrays.atoms_batch(alone, torch.float64), _FREE).receiver.numpy()
        free[np.delete(alone, np.unique(near))] = True
    return free


def without_free_atoms(
    parts: dict[str, StructureArrays | None],
) -> tuple[dict[str, StructureArrays | None], Floats, int]:
    """The parts without free atoms, energies of these by atomic number (119,), and how many there are.

    Of several energies the lowest counts; where there is none, NaN.
    """
    lowest, count = np.full(119, np.inf), 0
    rest: dict[str, StructureArrays | None] = {}
    for name, part in parts.items():
        rest[name] = part
        if part is None:
            continue
        free = free_atoms(part)
        if free.any():
            np.minimum.at(lowest, part.numbers[np.repeat(free, part.n_atoms)], part.values["energy"][free])
            rest[name] = None if free.all() else part.take(np.flatnonzero(~free))
            count += int(free.sum())
    return rest, np.where(np.isfinite(lowest), lowest, np.nan), count
