"""Structures from CIF text: a small parser for P1 files such as pymatgen writes, ASE and pymatgen for the rest."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_potnet.readers.entry import reason_of
from ase_potnet.readers.structures import crystal

_CELL = tuple(
    f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_P1 = {  # names of data are not case-sensitive
    "_symmetry_space_group_name_h-m": ("P 1", "P1"),
    "_space_group_name_h-m_alt": ("P 1", "P1"),
    "_symmetry_int_tables_number": ("1",),
    "_space_group_it_number": ("1",),
}
_SYMMETRY = r"_name_h-m|_it_number|_int_tables_number|_pos_as_xyz|_operation_xyz"  # in names of data
_HALL = r"^\s*_\w*space_group_name_hall\s+['\"]?(?!P 1\s*['\"]?\s*$)[-A-Z]"
_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")


def parse_cif(text: str) -> Atoms:
    """The structure of a CIF, in the cell that it gives, oriented as pymatgen does (see `cell_vectors`).

    P1 files in pymatgen's layout take a fast path that keeps the coordinates as written (pymatgen itself moves
    those within 1e-4 of a third or sixth). Others go to ASE, and to pymatgen where it is installed and ASE fails.

    Raises:
        ValueError: the text is no CIF, its symmetry is not understood, or a site is occupied partially.
    """
    if re.search(_HALL, text, re.I | re.M) and not re.search(_SYMMETRY, text, re.I):
        raise ValueError("its only word on symmetry is a Hall symbol; it wants a Hermann-Mauguin symbol or operations")
    atoms = parse_p1(text)
    return _parse_any(text) if atoms is None else atoms


def cif_blocks(text: str) -> list[str]:
    """The data blocks of a CIF that hold atoms, each a CIF of its own; the whole text where there is one or none."""
    blocks: list[list[str]] = [[]]
    in_text = False
    for line in text.splitlines(keepends=True):
        if line.startswith(";"):  # begins and ends a text of several lines
            in_text = not in_text
        elif not in_text and line[:5].lower() == "data_":
            blocks.append([])
        blocks[-1].append(line)
    with_atoms = [joined for joined in map("".join, blocks) if "_atom_site_" in joined.lower()]
    return with_atoms if len(with_atoms) > 1 else [text]


def parse_p1(text: str) -> Atoms | None:
    """The structure of a P1 CIF with one block, its sites in one loop; None for any other text."""
    lines = list(map(str.strip, text.splitlines()))
    items: dict[str, str] = {}
    sites: tuple[list[str], list[list[str]]] | None = None
    i = 0
    while i < len(lines):
        line = lines[i]
        i += 1
        if line.lower() == "loop_":
            heads, rows, i = _loop(lines, i)
            if "_atom_site_fract_x" in heads:
                sites = heads, rows
            elif not _is_identity(heads, rows):
                return None
        elif line.startswith("_"):
            key, *value = line.split(maxsplit=1)
            items[key.lower()] = value[0].strip("'\"") if value else ""
        elif line.startswith("data_") and items:
            return None  # several blocks
        elif line and not line.startswith(("#", "data_")):
            return None  # text over several lines, rows after a comment, ...
    if sites is None or any(key not in items for key in _CELL):
        return None
    if any(items[key] not in allowed for key, allowed in _P1.items() if key in items):
        return None
    return _build(items, *sites)


def _loop(lines: Sequence[str], start: int) -> tuple[list[str], list[list[str]], int]:
    """Column names and rows of a loop that starts at this line, and where it ends. Rows are split at blanks."""
    heads: list[str] = []
    while start < len(lines) and lines[start].startswith("_"):
        heads.append(lines[start].lower())
        start += 1
    rows: list[list[str]] = []
    while start < len(lines) and lines[start] and not lines[start].startswith(("_", "loop_", "data_", "#")):
        rows.append(lines[start].split())
        start += 1
    return heads, rows, start


def _is_identity(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the loop holds no symmetry operations but the identity."""
    if not any(name in heads for name in _OPERATIONS):
        return not any("symop" in name or "symmetry" in name for name in heads)
    return len(rows) == 1 and "".join(rows[0]).strip("1'\"").replace("'", "") == "x,y,z"


def _build(items: dict[str, str], heads: list[str], rows: list[list[str]]) -> Atoms | None:
    """The structure of parsed items and sites, or None where a row or number is not plain."""
    if any(len(row) != len(heads) for row in rows) or not all(key in heads for key in _COORDINATES):
        return None
    name = "_atom_site_type_symbol"
    if name not in heads:
        return None
    columns = dict(zip(heads, zip(*rows, strict=True), strict=True)) if rows else {}
    try:
        occupied = [float(value) for value in columns.get("_atom_site_occupancy", ())]
        parameters = [float(items[key]) for key in _CELL]
        scaled = np.array([columns[key] for key in _COORDINATES]).astype(np.float64).T  # (n_atoms, 3)
    except (ValueError, KeyError):
        return None
    if any(value != 1 for value in occupied):
        raise ValueError("a site is occupied partially")
    return crystal(columns[name], cell_vectors(*parameters), scaled=scaled)


def _parse_any(text: str) -> Atoms:
    """The structure of any CIF: ASE, else pymatgen."""
    from ase.io.cif import read_cif

    try:
        atoms = read_cif(io.StringIO(text), index=-1)
        assert isinstance(atoms, Atoms)
        occupancy = atoms.info.get("occupancy", {})
    except Exception as error:
        try:
            from pymatgen.io.cif import CifParser
        except ImportError:
            raise ValueError(
                f"not readable as CIF by ASE ({reason_of(error)}); pymatgen may read it: pip install pymatgen"
            ) from error
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            structure = CifParser.from_str(text).parse_structures(primitive=False)[0]
        if any("Defaulting to P1" in str(note.message) for note in notes) and re.search(_SYMMETRY, text, re.I):
            raise ValueError(f"its symmetry is not understood ({reason_of(error)})") from None
        if not structure.is_ordered:
            raise ValueError("a site is occupied partially") from None
        symbols = [site.specie.symbol for site in structure]
        return crystal(symbols, cell_vectors(*structure.lattice.parameters), scaled=structure.frac_coords)
    if any(abs(sum(site.values()) - 1) > 1e-3 or len(site) > 1 for site in occupancy.values()):
        raise ValueError("a site is occupied partially")
    found = crystal(atoms.symbols, cell_vectors(*atoms.cell.cellpar()), scaled=atoms.get_scaled_positions(wrap=False))
    if atoms.has("masses"):  # of deuterium
        found.set_masses(atoms.get_masses())
    return found


def cell_vectors(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> NDArray[np.float64]:
    """Lattice vectors (3, 3), rows, Å, from lengths (Å) and angles (degrees).

    c lies along z and a in the xz plane, as in pymatgen's `Lattice.from_parameters`.
    """
    if not all(0 < angle < 180 for angle in (alpha, beta, gamma)):
        raise ValueError(f"cell angles of {alpha}, {beta}, {gamma} degrees")
    cos_alpha, cos_beta, cos_gamma = (math.cos(math.radians(angle)) for angle in (alpha, beta, gamma))
    sin_alpha, sin_beta = (math.sin(math.radians(angle)) for angle in (alpha, beta))
    cos_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)  # of the reciprocal angle gamma*
    if abs(cos_star) > 1:
        raise ValueError(f"no cell has angles of {alpha}, {beta}, {gamma} degrees")
    sin_star = math.sqrt(1 - cos_star**2)
    return np.array(
        [
            [a * sin_beta, 0.0, a * cos_beta],
            [-b * sin_alpha * cos_star, b * sin_alpha * sin_star, b * cos_alpha],
            [0.0, 0.0, c],
        ]
    )
