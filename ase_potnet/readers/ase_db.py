"""ASE databases: SQLite (.db), JSON (.json) and, with ase-db-backends installed, LMDB (.aselmdb)."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ase_potnet.readers.entry import ID_KEYS, Entry
from ase_potnet.readers.files import Progress, open_text, stem, track


def is_ase_json(path: Path) -> bool:
    """Whether a JSON file is a database of ASE, by its start."""
    with open_text(path, errors="replace") as stream:
        return re.match(r'\s*\{\s*"(\d+|ids)"\s*:', stream.read(200)) is not None


def ase_db_entries(
    path: Path, progress: Progress, id_key: str | None, group_key: str | None
) -> Generator[Entry, None, None]:
    """The rows of an ASE database, in its order. Raises ValueError if ASE cannot open it."""
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
