"""CSV files with a CIF in one column, as exported from the Materials Project."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.cif_csv import cif_csv_entries
from ase_potnet.readers.files import Progress

from .collect import collect
from .dataset import Dataset


def read_cif_csv(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
    cif: str = "cif",
    id: str | None = None,  # noqa: A002
) -> Dataset:
    """A CSV file with a header line, one structure a row; every other column with numbers is a target.

    Args:
        cif: the column with the CIF text
        id: the column with the ids; None takes material_id or the like, else numbers the rows
        path, targets, limit, progress: see `open_dataset`

    Raises:
        ValueError: a column is missing, or as `open_dataset`.
    """
    return collect(cif_csv_entries(Path(path), progress, cif, id), targets=targets, limit=limit, source=path)
