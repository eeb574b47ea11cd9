"""CSV files with a CIF in one column, as exported from the Materials Project."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TextIO

from ase_potnet.readers.cif import parse_cif
from ase_potnet.readers.entry import ID_KEYS, Entry
from ase_potnet.readers.files import Progress, open_text

FIELD_LIMIT = 1 << 26  # characters of one field; the csv module allows 131,072 unless told otherwise


def cif_csv_entries(path: Path, progress: Progress, cif: str, id_column: str | None) -> Generator[Entry, None, None]:
    """The rows of a CSV file with CIF text in one column. Raises ValueError if a column is missing."""
    with open_text(path, progress=progress, errors="replace") as stream:
        for i, row in enumerate(csv_rows(stream)):
            if i == 0:
                for name in filter(None, (cif, id_column)):
                    if name not in row:
                        raise ValueError(f"{path}: no column {name!r}; there are {', '.join(row)}")
            key = id_column or next((key for key in ID_KEYS if key in row), None)
            text = row.pop(cif) or ""
            name = str(row.pop(key)) if key else f"row-{i + 1}"
            yield Entry(name, row, partial(parse_cif, text))


def first_row(path: Path) -> dict[str, str | None]:
    """The first row of a CSV file; empty where there is none."""
    with open_text(path, errors="replace") as stream:
        return next(csv_rows(stream), {})


def cif_column(row: Mapping[str, str | None]) -> str | None:
    """The column of a row that holds CIF text."""
    return next((name for name, value in row.items() if value and "_cell_length_a" in value), None)


def csv_rows(stream: TextIO) -> Iterator[dict[str, str | None]]:
    """The rows of a CSV file with a header, as dicts; a short row has None in the columns it lacks."""
    reader = csv.reader(stream)
    names: list[str] | None = None
    while True:
        try:
            with _field_limit():
                row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"CSV line {reader.line_num}: {error}") from error
        if row is None:
            return
        if names is None:
            names = [name.strip() for name in row]
        elif row:
            yield dict(zip(names, [*row, *[None] * (len(names) - len(row))], strict=False))


@contextlib.contextmanager
def _field_limit() -> Iterator[None]:
    """Raise the csv module's process-wide limit, for this block only."""
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
