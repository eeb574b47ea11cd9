"""Files that ASE alone reads: trajectories (.traj), outputs of VASP (vasprun.xml, OUTCAR) and of other codes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.ase_files import ase_file_entries
from ase_potnet.readers.files import Progress

from .collect import collect
from .dataset import Dataset


def read_ase_file(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
    id: str | None = None,  # noqa: A002
    group: str | None = None,
) -> Dataset:
    """All frames of a file of any other format that ASE reads.

    Energy, forces and stress stay in `atoms.calc`, see `labels`. Targets are the numbers in `atoms.info`; asked for
    by name, those of the calculator too.

    Args:
        id: key of `atoms.info` with the id; None takes id, material_id or the like, else file name and frame number
            (from 0)
        group: key of `atoms.info` with the group; None takes "group" where there is one
        path, targets, limit, progress: see `open_dataset`

    Raises:
        ValueError: ASE does not know the format or cannot read the first frame, or as `open_dataset`.
    """
    return collect(ase_file_entries(Path(path), progress, id, group), targets=targets, limit=limit, source=path)
