"""Results as CSV, Parquet, extended XYZ, or pymatgen's JSON."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_potnet.file_safety import replacing
from ase_potnet.screening.sources import WRITTEN_BY
from ase_potnet.screening.store import DONE, FIXED, Record, opened, records

_ROWS = 10_000  # of a Parquet file that are in memory at once


def export(results: str | Path, path: str | Path) -> Path:
    """Write the records of a file of results, by the ending of the name: .csv, .parquet, .extxyz, .json.

    Tables hold every record, failures included. extxyz holds the structures of those that are done, JSON (a list of
    pymatgen's ComputedStructureEntry, MSONable) those of them with an energy and a cell. The file is whole or absent.

    Raises:
        ValueError: another ending, or no file of results.
        ModuleNotFoundError: pyarrow (Parquet) is not installed.
    """
    target = Path(path)
    check_name(target)
    _WRITERS[target.suffix.lower()](Path(results), target)
    return target


def check_name(path: Path) -> None:
    """Raises ValueError for a file that ``export`` cannot write, by its name."""
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"export: wanted a name that ends with {', '.join(_WRITERS)}, got {str(path)!r}")


def columns(results: str | Path) -> list[str]:
    """Names of all values in a file of results, in the order in which they come first."""
    found: dict[str, None] = {}
    with opened(results) as connection:
        for (text,) in connection.execute("SELECT data FROM results ORDER BY number"):
            found.update(dict.fromkeys(json.loads(text)))
    return list(found)


def rows(results: str | Path) -> Iterator[dict[str, Any]]:
    """One flat row for every record; a list is its JSON."""
    for record in records(results, structures=False):
        row: dict[str, Any] = {name: getattr(record, name) for name in FIXED}
        for name, value in record.values.items():
            row[name] = json.dumps(value) if isinstance(value, (list, dict)) else value
        yield row


def _csv(results: Path, target: Path) -> None:
    names = [*FIXED, *columns(results)]
    with replacing(target) as raw:
        lines = _Lines(raw.write)
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(results))


class _Lines:
    """Text to bytes, for ``csv``."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        self._write(text.encode())


def _parquet(results: Path, target: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = _kinds(results)
    types = {float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in kinds.items()])
    every = rows(results)
    with replacing(target) as raw, pyarrow.parquet.ParquetWriter(raw, schema) as writer:
        while some := list(itertools.islice(every, _ROWS)):
            columns_ = {name: [_as(kind, row.get(name)) for row in some] for name, kind in kinds.items()}
            writer.write_table(pyarrow.table(columns_, schema))


def _kinds(results: Path) -> dict[str, type]:
    """Name and type of every column; text where values of different kinds meet."""
    kinds: dict[str, type] = {name: int if name == "n_atoms" else str for name in FIXED}
    for row in rows(results):
        for name, value in row.items():
            kind = type(value)
            before = kinds.get(name, kind)
            if value is not None and kind is not before:
                kind = float if {kind, before} == {int, float} else str
            kinds[name] = before if value is None else kind
    return {name: kind if kind in (int, float, bool) else str for name, kind in kinds.items()}


def _as(kind: type, value: Any) -> Any:
    return value if value is None or isinstance(value, kind) else kind(value)


def _extxyz(results: Path, target: Path) -> None:
    import io

    from ase.io import write

    with replacing(target) as raw:
        for record in _finished(results):
            text = io.StringIO()
            write(text, _labelled(record), format="extxyz")
            raw.write(text.getvalue().encode())


def _finished(results: Path) -> Iterator[Record]:
    return (record for record in records(results) if record.status == DONE and record.atoms is not None)


def _labelled(record: Record) -> Atoms:
    """The structure with id and values in ``info`` and the energy in its calculator."""
    assert record.atoms is not None
    atoms = record.atoms.copy()
    plain = {k: v for k, v in record.values.items() if isinstance(v, (int, float, str, bool)) and k != "energy"}
    atoms.info.update(plain, id=record.id, written_by=WRITTEN_BY)
    if "energy" in record.values:
        atoms.calc = SinglePointCalculator(atoms, energy=record.values["energy"])
    return atoms


def _json(results: Path, target: Path) -> None:
    """pymatgen's layout, written without pymatgen."""
    left_out = 0
    with replacing(target) as raw:
        raw.write(b"[")
        separator = b"\n"
        for record in _finished(results):
            assert record.atoms is not None
            if "energy" not in record.values:
                continue
            if record.atoms.cell.rank < 3:
                left_out += 1
                continue
            raw.write(separator + json.dumps(_entry(record)).encode())
            separator = b",\n"
        raw.write(b"\n]\n")
    if left_out:
        sys.stderr.write(f"{target}: {left_out} structures left out that have no cell, as pymatgen wants one\n")


def _entry(record: Record) -> dict[str, Any]:
    assert record.atoms is not None
    atoms, symbols = record.atoms, record.atoms.get_chemical_symbols()
    scaled = atoms.get_scaled_positions(wrap=False).tolist()
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "abc": abc, "xyz": xyz, "label": symbol, "properties": {}}
        for symbol, abc, xyz in zip(symbols, scaled, atoms.positions.tolist(), strict=True)
    ]
    lattice = {"matrix": atoms.cell.array.tolist(), "pbc": atoms.pbc.tolist()}
    structure = {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0, "lattice": lattice}
    return {
        "@module": "pymatgen.entries.computed_entries",
        "@class": "ComputedStructureEntry",
        "written_by": WRITTEN_BY,
        "entry_id": record.id,
        "energy": record.values["energy"],
        "correction": 0.0,
        "composition": {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)},
        "data": {name: value for name, value in record.values.items() if name != "energy"},
        "structure": structure | {"sites": sites},
    }


_WRITERS: dict[str, Callable[[Path, Path], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".extxyz": _extxyz,
    ".json": _json,
}
