"""Extended XYZ, one frame or a million, compressed or not, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.extxyz import extxyz_entries
from ase_potnet.readers.files import Progress

from .collect import collect
from .dataset import Dataset


def read_extxyz(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
    id: str | None = None,  # noqa: A002
    group: str | None = None,
) -> Dataset:
    """The frames of an extended XYZ file (.xyz, .extxyz; .gz, .bz2, .xz, .zip).

    Energy, forces and stress (eV, eV/Å, eV/Å^3 in ASE's sign) stay in `atoms.calc`, see `labels`. Other numbers of
    the comment line are targets. Asked for by name, a number of the calculator ("energy", eV per cell) is a target.

    Args:
        id: key of the comment line with the id; None takes id, material_id or the like, else file name and frame
            number (from 0). Frames that share an id get suffixes (see `unique`) and that id as their group.
        group: key of the comment line with the group; None takes "group" where there is one
        path, targets, limit, progress: see `open_dataset`

    A frame cut off at the end of the file is a broken entry, and so are lines between frames that are none.
    """
    return collect(extxyz_entries(Path(path), progress, id, group), targets=targets, limit=limit, source=path)
