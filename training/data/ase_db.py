"""ASE databases: SQLite (.db), JSON (.json) and, with ase-db-backends installed, LMDB (.aselmdb)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from .collect import ID_KEYS, Entry, collect
from .dataset import Dataset
from .files import Progress, stem, track


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
    return collect(_entries(Path(path), progress, id, group), targets=targets, limit=limit, source=path)


def _entries(path: Path, progress: Progress, id_key: str | None, group_key: str | None) -> Generator[Entry, None, None]:
    from ase.db import connect

    if not path.exists():
        raise ValueError(f"path: no file {path}")
    try:
        database = connect(str(path), use_lock_file=False)
        total = database.count()
    except Exception as error:  # sqlite3, json, plug-ins
        hint = " (.aselmdb needs: pip install ase-db-backends)" if path.suffix in (".aselmdb", ".lmdb") else ""
        raise ValueError(f"path: ASE cannot open the database {path}{hint}: {error}") from error
    for row in track(database.select(), path.name, total=total, progress=progress):
        fields: dict[str, Any] = {**row.get("data", {}), **row.key_value_pairs}
        group = fields.pop(group_key or "group", None)
        key = id_key or next((key for key in ID_KEYS if key in fields), None)
        name = str(fields.pop(key)) if key in fields else f"{stem(path)}-{row.id}"
        yield Entry(name, fields, row.toatoms, None if group is None else str(group))
