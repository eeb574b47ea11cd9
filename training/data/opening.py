"""One function for every source: `open_dataset` recognises what a path holds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase_potnet.readers.ase_db import is_ase_json
from ase_potnet.readers.ase_files import ase_format
from ase_potnet.readers.cif_csv import cif_column, first_row
from ase_potnet.readers.entry import ID_KEYS
from ase_potnet.readers.files import Progress, iter_json, open_text, plain_suffix, read_npz
from ase_potnet.readers.structure_files import is_structure_file

from .ase_db import read_ase_db
from .ase_files import read_ase_file
from .cells_npz import read_cells_npz
from .cif_csv import read_cif_csv
from .dataset import Dataset, join
from .extxyz import read_extxyz
from .jarvis import read_jarvis
from .label_shards import is_label_folder, read_label_shards
from .leaderboard import read_leaderboard
from .mp_summary import read_mp_summary
from .structure_files import read_structure_files

KINDS: dict[str, Callable[..., Dataset]] = {
    "jarvis": read_jarvis,
    "leaderboard": read_leaderboard,
    "cif-csv": read_cif_csv,
    "mp-summary": read_mp_summary,
    "extxyz": read_extxyz,
    "ase-db": read_ase_db,
    "structures": read_structure_files,
    "cells-npz": read_cells_npz,
    "labels": read_label_shards,
    "ase": read_ase_file,
}
Spec = str | Path | Mapping[str, Any] | Sequence[Any]

_HEAD = 4096  # characters looked at to tell the kind


def open_dataset(
    path_or_spec: Spec,
    *,
    targets: Iterable[str] | str | None = None,
    kind: str = "auto",
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """The structures and target values that a file, folder or glob pattern holds.

    Args:
        path_or_spec: a path or glob pattern; or a mapping with "path", optionally "kind" and further arguments of
            the source's function, such as {"path": "poscars/", "targets_csv": "gaps.csv"}; or a list of these, whose
            records are joined
        targets: names of the targets to keep; None keeps every field with a number. Values that are missing, 'na',
            NaN or infinite are left out of `Record.targets` and counted in `Dataset.skipped`.
        kind: jarvis, leaderboard, cif-csv, mp-summary, extxyz, ase-db, structures, cells-npz, labels, ase (a file of
            any other format that ASE reads: .traj, vasprun.xml, OUTCAR, ...), or auto: told from content and name
        limit: read at most this many structures (of each source of a list)
        progress: True draws a bar if stderr is a terminal (and rich is installed), "always" in any case, False never

    Entries that cannot be read are listed in `Dataset.broken` with the reason and left out: no atoms, unknown elements,
    partial occupancies, numbers that are not finite, a cell without volume, atoms within 0.1 Å. An id that occurs
    again gets a suffix #2, #3, ...; such records share a group.

    Raises:
        ValueError: nothing there, of no known kind, damaged, none of the entries usable, or an unknown target or kind.
    """
    if not isinstance(path_or_spec, (str, Path, Mapping)):
        if not path_or_spec:
            raise ValueError("path_or_spec: an empty list")
        names = targets if targets is None or isinstance(targets, str) else list(targets)
        return join(open_dataset(s, targets=names, kind=kind, limit=limit, progress=progress) for s in path_or_spec)
    options: dict[str, Any] = dict(path_or_spec) if isinstance(path_or_spec, Mapping) else {"path": path_or_spec}
    if "path" not in options:
        raise ValueError(f"path_or_spec: a mapping needs 'path'; it has {', '.join(options) or 'nothing'}")
    path: Any = options.pop("path")
    kind = str(options.pop("kind", kind))
    options = {"targets": targets, "limit": limit, "progress": progress} | options
    if kind == "auto":
        kind, path, more = recognise(path)
        options = more | options
    if kind not in KINDS:
        raise ValueError(f"kind: wanted auto or one of {', '.join(KINDS)}, got {kind!r}")
    read = KINDS[kind]
    unknown = options.keys() - inspect.signature(read).parameters.keys()
    if unknown:
        raise ValueError(f"path_or_spec: a source of kind {kind} has no option {', '.join(sorted(unknown))}")
    if kind != "structures" and not Path(path).exists():
        raise ValueError(f"path: no file or folder {path}")
    return read(path, **options)


def recognise(path: Any) -> tuple[str, Any, dict[str, Any]]:
    """Kind of the source at a path, the path to read, and options that follow from what was found."""
    if not isinstance(path, (str, Path)):
        return "structures", path, {}
    place = Path(path)
    if place.is_dir():
        return _recognise_folder(place), path, {}
    if not place.exists():
        if re.search(r"[*?\[]", str(path)):
            return "structures", path, {}
        raise ValueError(f"path: no file or folder {path}")
    with place.open("rb") as file:
        if file.read(15) == b"SQLite format 3":
            return "ase-db", path, {}
    suffix = plain_suffix(place)
    if suffix in (".aselmdb", ".lmdb"):
        return "ase-db", path, {}
    if suffix == ".npz":
        return _recognise_npz(place), path, {}
    if suffix == ".csv":
        return _recognise_csv(place)
    if suffix in (".xyz", ".extxyz"):
        return "extxyz", path, {}
    if is_structure_file(place):
        return "structures", path, {}
    try:
        with open_text(place) as stream:
            head = stream.read(_HEAD).lstrip()
    except ValueError:
        if ase_format(place) is None:
            raise
        return "ase", path, {}
    if head.startswith(("[", "{")):
        return _recognise_json(place), path, {}
    if re.match(r"\d+\s*\n.*Properties=", head):
        return "extxyz", path, {}
    if ase_format(place) is not None:
        return "ase", path, {}
    raise ValueError(f"path: cannot tell what {path} holds; pass kind, one of {', '.join(KINDS)}")


def _recognise_folder(folder: Path) -> str:
    if (folder / "id_prop.csv").is_file():
        return "leaderboard"
    if is_label_folder(folder):
        return "labels"
    if any(is_structure_file(file) for file in folder.rglob("*")):
        return "structures"
    raise ValueError(
        f"path: the folder {folder} has neither id_prop.csv nor structure files (.cif, .vasp, POSCAR*, .xyz, ...) "
        "nor labels (shard_*.npz); name the file to read"
    )


def _recognise_npz(path: Path) -> str:
    arrays = read_npz(path, ())
    if "energy" in arrays and "forces" in arrays:
        return "labels"
    if "frac" in arrays and "cell" in arrays:
        return "cells-npz"
    raise ValueError(
        f"path: the .npz file {path} has neither frac and cell nor energy and forces; "
        f"it has {', '.join(arrays) or 'nothing'}"
    )


def _recognise_json(path: Path) -> str:
    """Kind of a JSON file by its first element."""
    if is_ase_json(path):
        return "ase-db"
    with open_text(path) as stream:
        first = next(iter_json(stream, str(path)), None)
    fields = first if isinstance(first, dict) else {}
    if isinstance(fields.get("atoms"), dict):
        return "jarvis"
    if isinstance(fields.get("structure"), dict):
        return "mp-summary"
    raise ValueError(
        f"path: the JSON file {path} is no list of entries with 'atoms' (JARVIS) or 'structure' (Materials Project); "
        f"its first entry has {', '.join(fields) or 'no fields'}"
    )


def _recognise_csv(path: Path) -> tuple[str, Any, dict[str, Any]]:
    """A CSV file with CIF text, or a table of targets beside structure files."""
    row = first_row(path)
    if (cif := cif_column(row)) is not None:
        return "cif-csv", path, {"cif": cif}
    if row and (next(iter(row)) in (*ID_KEYS, "file", "filename", "path")):
        return "structures", path.parent, {"targets_csv": path}
    raise ValueError(
        f"path: the CSV file {path} has no column with CIF text, and its first column is not named id, file or path; "
        f"its columns are {', '.join(row) or 'none'}"
    )
