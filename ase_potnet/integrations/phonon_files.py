"""What `potnet phonon` writes: parameters of phonopy, a picture of bands and DOS, thermal properties."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.formula import Formula

from ase_potnet.file_safety import require_writable
from ase_potnet.integrations.harmonic import PhononWarning, Progress, phonons
from ase_potnet.progress import warnings_as_lines
from ase_potnet.readers.structure_files import read_checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from phonopy import Phonopy

PARAMETERS, PICTURE, TABLE = "phonopy_params.yaml", "phonons.png", "thermal_properties.csv"
_STAGES = {"relax": "relaxing", "forces": "forces", "properties": "bands, DOS, thermal properties"}


def parse_numbers(option: str, text: str) -> Any:
    """ "auto", a length, three integers or the rows of a matrix from the command line, such as "2 2 2" or "2,2,2"."""
    words = text.replace(",", " ").split()
    if words == ["auto"] and option == "--supercell":
        return "auto"
    try:
        if len(words) == 1:  # of a supercell, 2 might mean (2, 2, 2): ``phonons`` asks
            return int(words[0]) if option == "--supercell" and words[0].isdigit() else float(words[0])
        numbers = [int(word) for word in words]
        return {3: lambda: numbers, 9: lambda: [numbers[:3], numbers[3:6], numbers[6:]]}[len(numbers)]()
    except (ValueError, KeyError):
        choices = "one length in Å or three integers"
        if option == "--supercell":
            choices = "auto, one length in Å, or 3 or 9 integers"
        raise ValueError(f"{option}: wanted {choices}, got {text!r}") from None


def write_phonons(file: Path, folder: Path, *, plot: bool = True, **options: Any) -> list[Path]:
    """Phonons of the structure in a file, written into a folder; options as of ``phonons``. Returns the files.

    Raises ValueError for a file that cannot be read or a structure that cannot be calculated.
    """
    atoms = read_checked(file)
    require_writable(folder)
    with warnings_as_lines(PhononWarning), _progress_bar() as progress:
        ph = phonons(atoms, progress=progress, **options)
    ph.save(folder / PARAMETERS, settings={"force_constants": ph.dataset is None})
    write_thermal_properties(ph, folder / TABLE)
    written = [folder / PARAMETERS, folder / TABLE]
    if plot:
        figure = plot_phonons(ph)
        figure.savefig(folder / PICTURE, dpi=150)
        written.append(folder / PICTURE)
    return written


def write_thermal_properties(ph: Phonopy, file: Path) -> None:
    """Temperature, free energy, entropy and heat capacity of the primitive cell as CSV."""
    found = ph.thermal_properties
    if found is None:
        raise ValueError("ph: wanted thermal properties; run ph.run_thermal_properties()")
    columns: tuple[Any, ...] = (found.temperatures, found.free_energy, found.entropy, found.heat_capacity)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("temperature (K)", "free energy (kJ/mol)", "entropy (J/K/mol)", "heat capacity (J/K/mol)"))
        for row in zip(*columns, strict=True):
            writer.writerow(f"{value:.8g}" for value in row)


def plot_phonons(ph: Phonopy, *, title: str | None = None) -> Figure:
    """Band structure and DOS side by side, frequencies in THz; imaginary ones are negative.

    The figure belongs to no window: ``figure.savefig(file)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (4, 1)})
    _draw_bands(ph, left)
    if ph.total_dos is None or ph.total_dos.dos is None:
        raise ValueError("ph: wanted a total DOS; run ph.run_total_dos()")
    right.plot(ph.total_dos.dos, ph.total_dos.frequency_points, color="C0", linewidth=1.2)
    right.fill_betweenx(ph.total_dos.frequency_points, ph.total_dos.dos, color="C0", alpha=0.25, linewidth=0)
    right.set(xlabel="DOS (1/THz)", xlim=(0, None))
    left.set_ylabel("frequency (THz)")
    left.set_title(title if title is not None else _title(ph), loc="left", fontsize=11)
    right.xaxis.set_major_locator(MaxNLocator(3, prune="lower"))
    left.set_ylim(*_limits(ph))
    for axes in (left, right):
        axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    return figure


def _draw_bands(ph: Phonopy, axes: Axes) -> None:
    structure = ph.band_structure
    if structure is None:
        raise ValueError("ph: wanted a band structure; run ph.auto_band_structure()")
    for distances, frequencies in zip(structure.distances, structure.frequencies, strict=True):
        axes.plot(distances, frequencies, color="C0", linewidth=1.2)
    ends = [float(structure.distances[0][0]), *(float(distances[-1]) for distances in structure.distances)]
    for end in ends:
        axes.axvline(end, color="0.8", linewidth=0.6, zorder=0)
    axes.set_xticks(ends, _tick_labels(structure.labels or [], structure.path_connections))
    axes.set_xlim(ends[0], ends[-1])


def _limits(ph: Phonopy) -> tuple[float, float]:
    """Frequencies to show: all of the bands, from 0 where none is imaginary."""
    assert ph.band_structure is not None
    values = np.concatenate([np.ravel(part) for part in ph.band_structure.frequencies])
    low, high = float(values.min()), float(values.max())
    return (1.05 * low if low < -0.05 else 0.0), 1.05 * high


def _tick_labels(labels: Sequence[str], connections: Sequence[bool]) -> list[str]:
    """One label for every end of a segment; two where the path jumps."""
    names = [label.replace("\\Gamma", "Γ").replace("GAMMA", "Γ") for label in labels]
    result, place = [names[0]], 1
    for connected in connections[:-1]:
        result.append(names[place] if connected else f"{names[place]}|{names[place + 1]}")
        place += 1 if connected else 2
    return [*result, names[place]]


def _title(ph: Phonopy) -> str:
    n_atoms = len(ph.supercell)
    symbol = getattr(ph.symmetry.dataset, "international", "")
    group = f", {symbol}" if symbol else ""
    formula = Formula("".join(ph.primitive.symbols)).reduce()[0].format("metal")
    return f"{formula}{group}, supercell of {n_atoms} atoms"


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """A bar for every stage, on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description:32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, part: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(_STAGES[stage], total=1.0)
            bar.update(tasks[stage], completed=float(np.clip(part, 0, 1)))

        yield report
