"""Compact collections of crystals: one .npz file of cells, elements and fractional coordinates."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_potnet.readers.entry import Entry
from ase_potnet.readers.files import Progress, read_npz, track

KEYS = ("material_id", "natoms", "cell", "numbers", "frac")


def cells_npz_entries(path: Path, progress: Progress) -> Generator[Entry, None, None]:
    """The crystals of a compact collection. Raises ValueError where its arrays do not fit."""
    arrays = read_npz(path, KEYS)
    n = len(arrays["natoms"])
    ends = np.cumsum(arrays["natoms"], dtype=np.int64)
    n_atoms = int(ends[-1]) if n else 0
    if not (len(arrays["material_id"]) == n and arrays["cell"].shape == (n, 3, 3)):
        raise ValueError(f"{path}: material_id and cell do not fit {n} values of natoms")
    if arrays["numbers"].shape != (n_atoms,) or arrays["frac"].shape != (n_atoms, 3):
        raise ValueError(f"{path}: numbers and frac do not fit {n_atoms} atoms")
    extra = {name: a for name, a in arrays.items() if name not in KEYS and a.shape == (n,) and a.dtype.kind in "fiu"}
    for i in track(range(n), path.name, total=n, progress=progress):
        part = slice(int(ends[i]) - int(arrays["natoms"][i]), int(ends[i]))
        build = partial(_atoms, arrays["numbers"][part], arrays["frac"][part], arrays["cell"][i])
        yield Entry(str(arrays["material_id"][i]), {name: float(a[i]) for name, a in extra.items()}, build)


def _atoms(numbers: NDArray[np.integer], frac: NDArray[np.floating], cell: NDArray[np.floating]) -> Atoms:
    vectors = cell.astype(np.float64)
    return Atoms(numbers=numbers, positions=frac.astype(np.float64) @ vectors, cell=vectors, pbc=True)
