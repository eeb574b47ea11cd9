"""Structure files from the command line: what `potnet predict` and `potnet relax` read and write."""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from ase_potnet.file_safety import require_writable
from ase_potnet.prediction import StructureError, model_for, predict_batches, target_column
from ase_potnet.pretrained import ModelInfo, load_model, model_info
from ase_potnet.pretrained.format import pick_device
from ase_potnet.progress import warnings_as_lines
from ase_potnet.readers.entry import reason_of
from ase_potnet.readers.files import plain_suffix, printable, stem
from ase_potnet.readers.structure_files import SUFFIXES, checked, is_structure_file, read_checked
from ase_potnet.screening.sources import COLLECTIONS, file_entries, files_in_folder

if TYPE_CHECKING:
    from ase_potnet.integrations.relaxation import Relaxation

Row = tuple[str, str, float]  # structure, formula, value
FORMATS = ("table", "csv", "json")


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files, and the structure files in folders, by their names. Raises ValueError for a missing one."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = files_in_folder(path)
            if not inside:
                raise ValueError(f"files: no structure files in the folder {path}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"files: no file or folder {path}")
    return found


def read_structures(files: Iterable[Path], failures: list[str]) -> Iterator[tuple[str, Atoms]]:
    """Name and structure of every frame of the files; what cannot be read is noted."""
    taken: set[str] = set()
    for file in files:
        count = 0
        try:
            for count, (own_name, build) in enumerate(_frames(file), start=1):
                name = own_name or (str(file) if count == 1 else f"{file}#{count}")
                name = printable(f"{file}: {name}" if own_name in taken else name)
                taken.add(name)
                try:
                    yield name, checked(build)
                except Exception as error:  # parsers raise anything
                    failures.append(f"{name}: {reason_of(error)}")
        except Exception as error:  # damaged from here on
            failures.append(f"{file}: {reason_of(error)}")
            continue
        if count == 0:
            failures.append(f"{file}: no structure in it")


def _frames(file: Path) -> Iterator[tuple[str | None, Callable[[], Atoms]]]:
    """The name of its own, where it has one, and the structure, not yet built, of every frame of a file."""
    named = plain_suffix(file) in COLLECTIONS
    yield from ((entry.id if named else None, entry.build) for entry in file_entries(file, str(file)))


def predict_files(
    paths: Iterable[Path],
    property: str | None,  # noqa: A002
    model: str | None,
    *,
    device: str = "auto",
) -> tuple[list[Row], str, str, list[str]]:
    """Predictions for all structures in files.

    Args:
        property: None: the formation energy per atom; of a model of the user's own, its only target.

    Returns:
        rows, the property, its unit, and what could not be read or predicted
    """
    info = model_for(property or "formation_energy_per_atom") if model is None else model_info(model)
    chosen = property or _only_target(info)
    column = target_column(info, chosen)
    place = pick_device(device)
    failures: list[str] = []
    items = list(read_structures(_tracked(find_files(paths)), failures))
    network = load_model(info.folder, device=place)
    rows: list[Row] = []
    while len(rows) < len(items):
        start = len(rows)
        try:
            for values in predict_batches(network, [atoms for _, atoms in items[start:]], device=place):
                done = items[len(rows) : len(rows) + len(values)]
                rows += [
                    (name, atoms.get_chemical_formula(mode="metal"), float(row[column]))
                    for (name, atoms), row in zip(done, values, strict=True)
                ]
        except StructureError as error:
            name, _ = items.pop(start + error.index)
            failures.append(f"{name}: {error.reason}")
    return rows, chosen, info.targets[column].unit, failures


def _only_target(info: ModelInfo) -> str:
    """The property to predict where none was named."""
    names = [target.name for target in info.targets]
    return names[0] if len(names) == 1 else "formation_energy_per_atom"


def _tracked(files: Sequence[Path]) -> Iterable[Path]:
    """The files, with a progress bar in a terminal."""
    if len(files) < 2 or not sys.stderr.isatty():
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, "reading", console=Console(file=sys.stderr), transient=True)


def check_format(form: str) -> None:
    """Raises ValueError for an unknown format of a table."""
    if form not in FORMATS:
        raise ValueError(f"--format: wanted one of {', '.join(FORMATS)}, got {form!r}")


def write_rows(rows: Sequence[Row], property: str, unit: str, form: str) -> str:  # noqa: A002
    """The rows as a table, CSV or JSON."""
    check_format(form)
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


def relax_file(
    file: Path, output: Path | None, *, model: str, cell: bool, fmax: float, max_steps: int, device: str
) -> tuple[str, bool]:
    """Relax the crystal of a file and write it beside, or to the output, in the format of its name.

    Returns:
        what was found, as text, and whether fmax was reached
    """
    from ase_potnet.integrations.relaxation import RelaxationWarning, relax

    atoms = read_checked(file)
    if output is not None and not _can_be_written(output, atoms):
        raise ValueError(f"--output: wanted a name of a format that ASE writes, such as .cif or .extxyz, got {output}")
    target = output or relaxed_name(file, atoms)
    if not atoms.pbc.all():
        raise ValueError(
            f"FILE: wanted a crystal with three periodic directions, got pbc={atoms.pbc.tolist()}; slabs and molecules "
            "relax with `potnet screen FILE --do relax` and with ASE's optimisers"
        )
    if atoms.constraints:
        sys.stderr.write("warning: constraints are left out; the symmetry of the crystal is kept\n")
    require_writable(target.parent)
    with warnings_as_lines(RelaxationWarning):
        found = relax(atoms, model, cell=cell, fmax=fmax, max_steps=max_steps, device=device)
    _write(target, found.atoms)
    return _relaxation_table(atoms, found) + f"written: {target}\n", found.converged


def relaxed_name(file: Path, atoms: Atoms) -> Path:
    """MgO_relaxed.cif for MgO.cif.gz, POSCAR_relaxed for POSCAR; .extxyz where ASE does not write the format."""
    if plain_suffix(file) in SUFFIXES:
        found = file.with_name(f"{stem(file)}_relaxed{plain_suffix(file)}")
    elif is_structure_file(file):
        found = file.with_name(f"{file.name}_relaxed")
    else:
        found = file.with_name(f"{file.stem}_relaxed{file.suffix}")
    names = (found.name, f"{file.stem}_relaxed.extxyz", "relaxed.extxyz")  # the last, as ASE takes any OUTCAR* for one
    return next(file.with_name(name) for name in names if _can_be_written(Path(name), atoms))


def _can_be_written(file: Path, atoms: Atoms) -> bool:
    """Whether ASE writes the atoms in the format that the name of a file stands for; some want more than atoms."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _write(Path(folder) / file.name, atoms)
        except Exception:  # formats raise anything
            return False
    return True


def _write(target: Path, atoms: Atoms) -> None:
    """The atoms in the format that the name stands for; each file of it is whole or absent."""
    from ase.io import write
    from ase.io.formats import filetype

    final = target.resolve()  # behind a link
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".unfinished_") as folder:
        write(Path(folder) / target.name, atoms, format=filetype(str(target), read=False))
        for part in Path(folder).iterdir():
            part.replace(final if part.name == target.name else final.with_name(part.name))


def _relaxation_table(before: Atoms, found: Relaxation) -> str:
    after = found.atoms
    state = "relaxed in" if found.converged else "NOT relaxed after"
    lines = [
        f"{after.get_chemical_formula(mode='metal')}: {state} {found.steps} steps",
        f"energy          {found.energy:.6f} eV, {found.energy / len(after):.6f} eV/atom",
        f"largest force   {found.force:.2g} eV/Å",
        f"largest stress  {found.stress:.2g} GPa",
    ]
    for name, atoms in (("before", before), ("after", after)):
        a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
        size = f"{a:.4f} {b:.4f} {c:.4f} Å  {alpha:.2f} {beta:.2f} {gamma:.2f}°  {atoms.get_volume():.3f} Å^3"
        lines.append(f"cell {name:<10} {size}")
    return "\n".join(lines) + "\n"
