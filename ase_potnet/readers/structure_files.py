"""Files that hold one structure: CIF, POSCAR, and what else ASE reads; compressed or not."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ase import Atoms

from ase_potnet.readers.cif import parse_cif
from ase_potnet.readers.entry import reason_of
from ase_potnet.readers.extxyz import extxyz_entries
from ase_potnet.readers.files import PACKED, open_text, plain_suffix
from ase_potnet.readers.structures import check

SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".xsf", ".res", ".gen", ".pdb")
_VASP = (".vasp", ".poscar")
_ASE_NAMES = {
    ".gen": "gen",
    ".pdb": "proteindatabank",
    ".xsf": "xsf",
}


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a structure file."""
    return plain_suffix(path) in SUFFIXES or path.name.upper().startswith(("POSCAR", "CONTCAR"))


def read_structure(path: Path, format: str | None = None) -> Atoms:  # noqa: A002
    """The structure in a file: CIF by `parse_cif`, VASP and others by ASE, the last one of several."""
    from ase.io import read

    suffix = plain_suffix(path)
    if suffix == ".cif" and format is None:
        with open_text(path, errors="replace") as stream:
            return parse_cif(stream.read())
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
        atoms = read(path, format=form)
    assert isinstance(atoms, Atoms)
    return atoms


def read_checked(file: Path) -> Atoms:
    """The structure in the file given to a command. Raises ValueError for one that is missing or cannot be right."""
    if not file.is_file():
        raise ValueError(f"FILE: no file {file}")
    try:
        return checked(partial(read_structure, file))
    except Exception as error:  # parsers raise anything
        raise ValueError(f"FILE: {file} cannot be read: {reason_of(error)}") from error


def checked(build: Callable[[], Atoms]) -> Atoms:
    """The structure. Raises ValueError if it cannot be right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsers remark on names of space groups and the like
        atoms = build()
    check(atoms)
    return atoms
