"""Folders and globs of structure files (CIF, POSCAR, XYZ, ...), with target values in a CSV file if there is one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from glob import iglob
from pathlib import Path
from typing import Any

from ase_potnet.readers.cif_csv import csv_rows
from ase_potnet.readers.entry import Entry, refuse
from ase_potnet.readers.files import Progress, open_text, plain_suffix, stem, track
from ase_potnet.readers.structure_files import (
    OF_VASP,
    SUFFIXES,
    is_structure_file,
    plain_name,
    structure_entries,
    without_inputs,
)

from .collect import collect
from .dataset import Dataset

TARGETS_FILE = "targets.csv"


def read_structure_files(
    path: str | Path | Sequence[str | Path],
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
    targets_csv: str | Path | None = None,
) -> Dataset:
    """The structures in files, in the order of their sorted paths.

    An id is the path within the folder without the suffix ("sub/NaCl"); POSCAR and CONTCAR take the name of their
    folder. Where both lie in one folder, as after a run of VASP, CONTCAR is read alone, or POSCAR if CONTCAR is empty;
    in a list of files both are. A file of several frames gives the ids of `read_extxyz`.

    Args:
        path: a folder (searched with its subfolders, hidden ones left out), a glob pattern, a file, or a list of files
        targets_csv: CSV file with a header; its first column names the structures by id, file name or path, the
            others are targets. None takes targets.csv in the folder, if it is there. A row without a structure
            is a broken entry.
        targets, limit, progress: see `open_dataset`
    """
    files, folder = _find(path)
    table = folder / TARGETS_FILE if targets_csv is None else Path(targets_csv)
    if targets_csv is not None and not table.is_file():
        raise ValueError(f"targets_csv: no file {table}")
    values = read_targets(table) if table.is_file() else {}
    return collect(_entries(files, folder, values, progress), targets=targets, limit=limit, source=path)


def _find(path: str | Path | Sequence[str | Path]) -> tuple[list[Path], Path]:
    """The structure files, and the folder that they are named from."""
    if not isinstance(path, (str, Path)):
        files = [Path(file) for file in path]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"path: no file {', '.join(missing)}")
        return files, Path()
    folder = Path(path)
    if folder.is_dir():
        found = (file for file in folder.rglob("*") if file.is_file() and is_structure_file(file))
        return without_inputs(sorted(file for file in found if not _is_hidden(file.relative_to(folder)))), folder
    if folder.is_file():
        return [folder], folder.parent
    pattern = str(path)
    names = iglob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute patterns)
    files = sorted(file for name in names if (file := Path(name)).is_file())
    if not files:
        raise ValueError(f"path: no folder, file or files like {pattern}")
    fixed = itertools.takewhile(lambda part: not re.search(r"[*?\[]", part), folder.parts[:-1])
    return without_inputs(files), Path(*fixed)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_targets(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a CSV file by their first column."""
    with open_text(path) as stream:
        rows = {}
        for row in csv_rows(stream):
            name = str(row.pop(next(iter(row)))).strip()
            if name in rows:
                raise ValueError(f"{path}: {name!r} occurs twice")
            rows[name] = row
        return rows


def _entries(
    files: Sequence[Path], folder: Path, table: dict[str, dict[str, Any]], progress: Progress
) -> Generator[Entry, None, None]:
    found: set[str] = set()
    for file in track(files, str(folder), total=len(files), progress=progress):
        inside = file.relative_to(folder) if file.is_relative_to(folder) else file
        name = inside.with_name(stem(file)) if plain_suffix(file) in SUFFIXES else inside
        if plain_name(file) in OF_VASP and inside.parent.name:
            name = inside.parent
        keys = (name.as_posix(), inside.as_posix(), file.name, file.stem, stem(file))
        row = next((key for key in keys if key in table), None)
        found.update(() if row is None else (row,))
        values = table.get(row, {}) if row is not None else {}
        try:
            frames = list(structure_entries(file))
        except (ValueError, OSError) as error:  # damaged as a whole
            frames = [Entry(name.as_posix(), {}, partial(refuse, str(error)))]
        for frame in frames:
            frame_name = name.as_posix() if len(frames) == 1 else frame.id
            yield Entry(frame_name, {**frame.values, **values}, frame.build, frame.group)
    for key in table:
        if key not in found:
            yield Entry(key, {}, partial(refuse, f"no structure file for the row {key!r}"))
