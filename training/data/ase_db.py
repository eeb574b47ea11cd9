"""ASE databases: SQLite (.db), JSON (.json) and, with ase-db-backends installed, LMDB (.aselmdb)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.ase_db import ase_db_entries
from ase_potnet.readers.files import Progress

from .collect import collect
from .dataset import Dataset


def read_ase_db(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
    id: str | None = None,  # noqa: A002
    group: str | None = None,
) -> Dataset:
    """The rows of an ASE database. Energy, forces and stress stay in `atoms.calc`, see `labels`.

    Targets are the numbers among a row's key-value pairs and data; asked for by name, those of its calculator too.

    Args:
        id: key with the id; None takes material_id or the like, else file name and row number
        group: key with the group; None takes "group" where there is one
        path, targets, limit, progress: see `open_dataset`

    Raises:
        ValueError: ASE cannot open the database, or as `open_dataset`.
    """
    return collect(ase_db_entries(Path(path), progress, id, group), targets=targets, limit=limit, source=path)
