"""Structure files from the command line: reading them one after the other, and tables of what was predicted."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ase import Atoms

from ase_potnet.prediction import StructureError, model_for, pick_device, predict_batches, target_column
from ase_potnet.pretrained import load_model, model_info

Row = tuple[str, str, float]  # structure, formula, value
FORMATS = ("table", "csv", "json")


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files, and those in folders whose name does not begin with a point. Raises ValueError for a missing one."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise ValueError(f"files: the folder {path} is empty")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"files: no file or folder {path}")
    return found


def read_structures(files: Iterable[Path], failures: list[str]) -> Iterator[tuple[str, Atoms]]:
    """Name and structure of every frame of the files; what cannot be read is noted."""
    from ase.io import iread

    for file in files:
        count = 0
        try:
            for count, atoms in enumerate(iread(file, index=":"), start=1):
                yield (str(file) if count == 1 else f"{file}#{count}"), atoms
        except Exception as error:  # ASE's readers raise anything
            failures.append(f"{file}: {' '.join(str(error).split()) or type(error).__name__}")
            continue
        if count == 0:
            failures.append(f"{file}: no structure in it")


def predict_files(
    paths: Iterable[Path],
    property: str,  # noqa: A002
    model: str | None,
    *,
    device: str = "auto",
) -> tuple[list[Row], str, list[str]]:
    """Predictions for all structures in files: rows, the unit, and what could not be read or predicted."""
    info = model_for(property) if model is None else model_info(model)
    column = target_column(info, property)
    failures: list[str] = []
    items = list(read_structures(_tracked(find_files(paths)), failures))
    place = pick_device(device)
    network = load_model(info.folder, device=place)
    rows: list[Row] = []
    while len(rows) < len(items):
        rest = items[len(rows) :]
        try:
            for values in predict_batches(network, [atoms for _, atoms in rest], device=place):
                done = items[len(rows) : len(rows) + len(values)]
                rows += [
                    (name, atoms.get_chemical_formula(mode="metal"), float(row[column]))
                    for (name, atoms), row in zip(done, values, strict=True)
                ]
        except StructureError as error:
            name, _ = rest[error.index]
            failures.append(f"{name}: {error.reason}")
            items = [item for item in items if item[0] != name]
    return rows, info.targets[column].unit, failures


def _tracked(files: Sequence[Path]) -> Iterable[Path]:
    """The files, with a progress bar in a terminal."""
    if len(files) < 2 or not sys.stderr.isatty():
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, "reading", console=Console(file=sys.stderr), transient=True)


def write_rows(rows: Sequence[Row], property: str, unit: str, form: str) -> str:  # noqa: A002
    """The rows as a table, CSV or JSON."""
    if form not in FORMATS:
        raise ValueError(f"--format: wanted one of {', '.join(FORMATS)}, got {form!r}")
    if form == "json":
        items = [{"structure": name, "formula": formula, property: value} for name, formula, value in rows]
        return json.dumps({"unit": unit, "predictions": items}, indent=2) + "\n"
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("structure", "formula", property))
        writer.writerows((name, formula, f"{value:.8g}") for name, formula, value in rows)
        return text.getvalue()
    width = max([len("structure"), *(len(name) for name, _, _ in rows)])
    middle = max([len("formula"), *(len(formula) for _, formula, _ in rows)])
    head = f"{'structure':{width}}  {'formula':{middle}}  {property}{f' ({unit})' if unit else ''}\n"
    return head + "".join(f"{name:{width}}  {formula:{middle}}  {value:.5f}\n" for name, formula, value in rows)
