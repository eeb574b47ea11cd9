"""Compact collections of crystals: one .npz file of cells, elements and fractional coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.cells_npz import cells_npz_entries
from ase_potnet.readers.files import Progress

from .collect import collect
from .dataset import Dataset


def read_cells_npz(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """The crystals of an .npz file with material_id (n,), natoms (n,), cell (n, 3, 3) Å, and, all crystals one after
    the other, numbers (n_atoms,) and fractional coordinates frac (n_atoms, 3).

    Any further array of n numbers is a target. Periodic in all directions.

    Args:
        path, targets, limit, progress: see `open_dataset`
    """
    return collect(cells_npz_entries(Path(path), progress), targets=targets, limit=limit, source=path)
