"""Extended XYZ, one frame or a million, compressed or not, frame by frame."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress

from ase_potnet.readers.entry import ID_KEYS, Entry, refuse
from ase_potnet.readers.files import Progress, open_text, stem
from ase_potnet.readers.structures import set_isotopes

_PAIR = re.compile(
    r'(?:"(?P<name>[^"\\]*)"|(?P<word>[^\s="\\{}\[\]]+))='  # key; what stands in quotes may have spaces
    r'(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"]+))(?:\s+|$)'
)
_ISOTOPE = re.compile(r"^\s*[DT](?=\s)")
_NUMBERS = {**atomic_numbers, "D": 1, "T": 1}
_COLUMNS = {"species:S:1:pos:R:3": 4, "species:S:1:pos:R:3:forces:R:3": 7}
_WORD = re.compile(r"[A-Za-z][\w./#:^()+-]*")  # a value that is text for ASE too
_BOOLEANS = {"T", "F", "TRUE", "FALSE"}
_TO_CALCULATOR = ("energy", "free_energy")
_ONLY_ASE = {"virial", "dipole", "magmom", "magmoms", "charges", "energies", "stresses", "polarization"}


def extxyz_entries(
    path: Path, progress: Progress = False, id_key: str | None = None, group_key: str | None = None
) -> Generator[Entry, None, None]:
    """The frames of the file, not yet parsed but for their comment lines."""
    with open_text(path, progress=progress) as stream:
        for i, frame in enumerate(_frames(stream)):
            name = f"{stem(path)}-{i}"
            if isinstance(frame, str):
                yield Entry(name, {}, partial(refuse, frame))
                continue
            texts = _texts(frame[0])
            key = id_key or next((key for key in ID_KEYS if key in texts), "")
            group = texts.get(group_key or "group")
            atoms = partial(parse_frame, frame)
            yield Entry(texts.get(key, name), _fields(texts, (key, group_key or "group")), atoms, group)


def _fields(texts: dict[str, str], without: tuple[str, ...]) -> dict[str, Any]:
    """The comment line's fields that may be targets."""
    skipped = {"Lattice", "Properties", "pbc", "stress", *_TO_CALCULATOR, *_ONLY_ASE, *without}
    return {key: value for key, value in texts.items() if key not in skipped}


def _texts(comment: str) -> dict[str, str]:
    """The key=value pairs of a comment line as they are written, without quotes."""
    pairs = (match.groupdict("") for match in _PAIR.finditer(comment))
    return {pair["name"] or pair["word"]: pair["text"].replace(r"\"", '"') or pair["plain"] for pair in pairs}


def _frames(stream: TextIO) -> Generator[list[str] | str, None, None]:
    """The frames as comment line and atom lines, or what is wrong in place of a frame."""
    number, lost = 0, False
    for line in stream:
        number += 1
        if not (count := line.strip()):
            continue
        if not count.isdigit():
            if not lost:
                yield f"line {number}: wanted the number of atoms, got {count[:40]!r}"
            lost = True  # look for the next number, and complain once
            continue
        lost = False
        lines = list(itertools.islice(stream, int(count) + 1))
        if len(lines) < int(count) + 1:
            yield f"line {number}: {count} atoms announced, the file ends after {max(len(lines) - 1, 0)}"
            return
        number += len(lines)
        yield lines


def parse_frame(lines: list[str]) -> Atoms:
    """The structure of one frame: comment line and atom lines. ASE parses what the fast path does not know."""
    from ase.io.extxyz import read_xyz

    atoms = parse_plain_frame(lines)
    if atoms is not None:
        return atoms
    symbols: list[str] = []
    comment, *rows = (line if line.endswith("\n") else line + "\n" for line in lines)
    if _texts(comment).get("Properties", "species").startswith("species"):
        symbols = [row.split(maxsplit=1)[0] if row.split() else "" for row in rows]
        rows = [_ISOTOPE.sub("H", row) for row in rows]
    found: Atoms = next(iter(read_xyz(io.StringIO(f"{len(rows)}\n{comment}{''.join(rows)}"), 0)))
    set_isotopes(found, symbols)
    return found


def parse_plain_frame(lines: list[str]) -> Atoms | None:
    """The structure of a frame with species, positions and perhaps forces, energy and stress; None for any other.

    Same result as ASE's reader to the last bit, four times faster; D and T are hydrogen, which ASE does not know.
    """
    fields = _texts(lines[0])
    columns = _COLUMNS.get(fields.pop("Properties", ""))
    if columns is None or _PAIR.sub("", lines[0]).strip() or not _ONLY_ASE.isdisjoint(fields):
        return None
    try:
        lattice = np.array(fields.pop("Lattice").split(), dtype=np.float64).reshape(3, 3)
        pbc = [{"T": True, "F": False}[flag] for flag in fields.pop("pbc", "T T T").split()]
        results: dict[str, Any] = {key: float(fields.pop(key)) for key in _TO_CALCULATOR if key in fields}
        if "stress" in fields:
            stress = np.array(fields.pop("stress").split(), dtype=np.float64).reshape(3, 3)
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        info = {key: _plain_value(value) for key, value in fields.items()}
        words = " ".join(lines[1:]).split()
        if len(words) != columns * (len(lines) - 1):
            return None
        symbols = words[::columns]
        numbers = [_NUMBERS[symbol] for symbol in symbols]
        del words[::columns]
        table = np.array(words, dtype=np.float64).reshape(-1, columns - 1)  # (n_atoms, 3 or 6)
    except (KeyError, ValueError):
        return None
    atoms = Atoms(numbers=numbers, positions=table[:, :3], cell=lattice, pbc=pbc, info=info)
    set_isotopes(atoms, symbols)
    if columns == 7:
        results["forces"] = table[:, 3:].copy()
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _plain_value(text: str) -> str | int | float:
    """A number, or a word that ASE takes for text too; raises ValueError for anything else."""
    if _WORD.fullmatch(text) and text.upper() not in _BOOLEANS and text.lower() not in ("nan", "inf", "infinity"):
        return text
    try:
        return int(text)
    except ValueError:
        return float(text)
