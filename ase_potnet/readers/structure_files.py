"""Files that hold one structure: CIF, POSCAR, and what else ASE reads."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from ase_potnet.readers.cif import parse_cif
from ase_potnet.readers.files import open_text

SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".xsf", ".res", ".gen", ".pdb")


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a structure file."""
    return path.suffix.lower() in SUFFIXES or path.name.upper().startswith(("POSCAR", "CONTCAR"))


def read_structure(path: Path, format: str | None = None) -> Atoms:  # noqa: A002
    """The structure in a file: CIF by `parse_cif`, VASP and others by ASE, the last one of several."""
    from ase.io import read

    if path.suffix.lower() == ".cif":
        with open_text(path) as stream:
            return parse_cif(stream.read())
    vasp = path.suffix.lower() in (".vasp", ".poscar") or path.name.upper().startswith(("POSCAR", "CONTCAR"))
    atoms = read(path, format=format or ("vasp" if vasp else None))
    assert isinstance(atoms, Atoms)
    return atoms
