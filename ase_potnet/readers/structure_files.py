"""Files of structures: CIF, POSCAR, xyz, and what else ASE reads; compressed or not."""

from __future__ import annotations

import io
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ase import Atoms

from ase_potnet.readers.ase_files import ase_file_entries, ase_format
from ase_potnet.readers.cif import cif_blocks, parse_cif
from ase_potnet.readers.entry import Entry, reason_of
from ase_potnet.readers.extxyz import extxyz_entries
from ase_potnet.readers.files import PACKED, open_text, plain_suffix, stem
from ase_potnet.readers.structures import check

SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".xsf", ".res", ".gen", ".pdb")
_VASP = (".vasp", ".poscar")
OF_VASP = ("POSCAR", "CONTCAR")
_ASE_NAMES = {
    ".gen": "gen",
    ".pdb": "proteindatabank",
    ".xsf": "xsf",
}


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a structure file."""
    return plain_suffix(path) in SUFFIXES or path.name.upper().startswith(("POSCAR", "CONTCAR"))


def without_inputs(files: list[Path]) -> list[Path]:
    """The files without POSCAR beside CONTCAR, or without a CONTCAR that is empty."""
    places: dict[Path, dict[str, list[Path]]] = {}
    for file in files:
        if (name := plain_name(file)) in OF_VASP:
            places.setdefault(file.parent, {}).setdefault(name, []).append(file)
    dropped: set[Path] = set()
    for found in places.values():
        if len(found) == len(OF_VASP):
            empty = all(file.stat().st_size == 0 for file in found["CONTCAR"])
            dropped.update(found["CONTCAR" if empty else "POSCAR"])
    return [file for file in files if file not in dropped]


def plain_name(path: Path) -> str:
    """The name without the suffix of a compression."""
    return path.stem if path.suffix.lower() in PACKED else path.name


def structure_entries(path: Path) -> Iterator[Entry]:
    """Every structure of a file, not yet built: blocks of a CIF, frames of xyz files and of what ASE alone reads.

    Of several models in a .pdb, .xsf or the like the last one.
    """
    suffix = plain_suffix(path)
    if suffix in (".xyz", ".extxyz"):
        yield from extxyz_entries(path)
    elif suffix == ".cif":
        with open_text(path, errors="replace") as stream:
            blocks = cif_blocks(stream.read())
        for number, block in enumerate(blocks):
            yield Entry(f"{stem(path)}-{number}", {}, partial(parse_cif, block))
    elif is_structure_file(path) or path.suffix.lower() in PACKED or ase_format(path) is None:
        yield Entry(f"{stem(path)}-0", {}, partial(read_structure, path))
    else:
        yield from ase_file_entries(path)


def read_structure(path: Path, format: str | None = None) -> Atoms:  # noqa: A002
    """The structure in a file: CIF by `parse_cif`, VASP and others by ASE, the last one of several."""
    from ase.io import read

    suffix = plain_suffix(path)
    if suffix == ".cif" and format is None:
        with open_text(path, errors="replace") as stream:
            return parse_cif(cif_blocks(stream.read())[-1])
    if suffix in (".xyz", ".extxyz") and format is None:
        last = deque(extxyz_entries(path), maxlen=1)  # of perhaps a million frames
        if not last:
            raise ValueError("no structure in it")
        return last[0].build()
    vasp = suffix in _VASP or path.name.upper().startswith(("POSCAR", "CONTCAR"))
    form = format or ("vasp" if vasp else None)
    if path.suffix.lower() in PACKED:
        with open_text(path) as stream:
            text = stream.read()
        if suffix == ".res" and form is None:  # ASE reads it from files alone
            from ase.io.res import Res

            atoms = Res.from_string(text).atoms
        else:
            atoms = read(io.StringIO(text), format=form or _ASE_NAMES.get(suffix))
    else:
        atoms = read(path, format=form, do_not_split_by_at_sign=True)
    assert isinstance(atoms, Atoms)
    return atoms


def read_checked(file: Path) -> Atoms:
    """The structure in the file given to a command; the last one of several, which is said.

    Raises ValueError for a file that is missing, or a structure that cannot be right.
    """
    if not file.is_file():
        raise ValueError(f"FILE: {file} is a folder" if file.is_dir() else f"FILE: no file {file}")
    count = 0
    try:
        for entry in structure_entries(file):
            last, count = entry, count + 1
        if count == 0:
            raise ValueError("no structure in it")
        atoms = checked(last.build)
    except Exception as error:  # parsers raise anything
        raise ValueError(f"FILE: {file} cannot be read: {reason_of(error)}") from error
    if count > 1:
        sys.stderr.write(f"note: {file} holds {count:,} structures; the last one is taken\n")
    return atoms


def checked(build: Callable[[], Atoms]) -> Atoms:
    """The structure. Raises ValueError if it cannot be right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsers remark on names of space groups and the like
        atoms = build()
    check(atoms)
    return atoms
