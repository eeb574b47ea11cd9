"""JARVIS-Leaderboard and ALIGNN folders: id_prop.csv, one structure file per id, dataset_info.json."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_potnet.readers.entry import Entry
from ase_potnet.readers.files import Progress, open_text, track
from ase_potnet.readers.structure_files import read_structure

from .collect import collect
from .dataset import Dataset
from .splits import Split

_ENDINGS = (".vasp", ".cif", ".xyz", ".pdb", ".poscar")


def read_leaderboard(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """A folder as `jarvis_populate_data.py` writes it and ALIGNN trains from.

    `id_prop.csv` has no header: file name, value (and further values) a line. The file name is the id, with or
    without "POSCAR-" and an ending, which the id here never has. The target is named as `prop` in
    dataset_info.json, else "target"; further values are target_1, target_2, ... The split of the folder:
    `leaderboard_split`. Arguments: see `open_dataset`.
    """
    return collect(_entries(Path(path), progress), targets=targets, limit=limit, source=path)


def leaderboard_split(path: str | Path) -> Split:
    """The split in dataset_info.json: the first n_train lines of id_prop.csv, the next n_val, the last n_test."""
    info = _info(Path(path))
    try:
        n_train, n_val, n_test = (int(info[key]) for key in ("n_train", "n_val", "n_test"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: {path}/dataset_info.json has no n_train, n_val and n_test") from error
    ids = [_id(row[0]) for row in _rows(Path(path))]
    if n_train + n_val + n_test != len(ids):
        raise ValueError(
            f"path: dataset_info.json counts {n_train} + {n_val} + {n_test} structures, id_prop.csv has {len(ids)}"
        )
    return Split(ids[:n_train], ids[n_train : n_train + n_val], ids[n_train + n_val :])


def _info(folder: Path) -> dict[str, Any]:
    file = folder / "dataset_info.json"
    if not file.is_file():
        return {}
    info = json.loads(file.read_text(encoding="utf-8"))
    return info if isinstance(info, dict) else {}


def _rows(folder: Path) -> list[list[str]]:
    """The lines of id_prop.csv."""
    file = folder / "id_prop.csv"
    if not file.is_file():
        raise ValueError(f"path: no id_prop.csv in {folder}")
    with open_text(file) as stream:
        return [[cell.strip() for cell in row] for row in csv.reader(stream) if row]


def _id(name: str) -> str:
    """The id in a file name: JVASP-1 for POSCAR-JVASP-1.vasp."""
    ending = next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)].removeprefix("POSCAR-")


def _entries(folder: Path, progress: Progress) -> Generator[Entry, None, None]:
    target = str(_info(folder).get("prop") or "target")
    rows = _rows(folder)
    for name, *cells in track(rows, folder.name, total=len(rows), progress=progress):
        values = {target if i == 0 else f"target_{i}": cell for i, cell in enumerate(cells)}
        yield Entry(_id(name), values, partial(_read, folder, name))


def _read(folder: Path, name: str) -> Atoms:
    """The structure of a line: the file of that name, or of its id with a usual prefix and ending."""
    bare = _id(name)
    names = [name, *(f"{prefix}{bare}{ending}" for prefix in ("", "POSCAR-") for ending in ("", *_ENDINGS))]
    file = next((folder / candidate for candidate in names if (folder / candidate).is_file()), None)
    if file is None:
        raise ValueError(f"no structure file {name}")
    return read_structure(file, None if file.suffix.lower() in (".cif", ".xyz", ".pdb") else "vasp")
