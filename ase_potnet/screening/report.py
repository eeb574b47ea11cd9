"""One self-contained HTML page of a file of results: no network, no library."""

from __future__ import annotations

import html
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors

from ase_potnet.file_safety import replacing
from ase_potnet.screening.export import columns
from ase_potnet.screening.store import DONE, FAILED, opened, read_settings, records
from ase_potnet.screening.tasks import units

MOST_STRUCTURES = 2000  # drawn in three dimensions; more make the page large
MOST_ROWS = 20_000
_FIXED = ("id", "formula", "n_atoms", "status", "reason", "message")


def write_report(results: str | Path, path: str | Path) -> Path:
    """Write the page: distributions, hull, energy against volume, failures, a sortable table, structures.

    Of more than 20,000 records the table shows the first, of more than 2,000 structures the first are drawn; both are
    said on the page. Counts and failures are those of all.

    Raises ValueError where there are no results.
    """
    source, target = Path(results), Path(path)
    data = report_data(source)
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = files("ase_potnet.screening").joinpath("report.html").read_text(encoding="utf-8")
    page = page.replace("$TITLE", html.escape(source.name)).replace("$DATA", text)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(page.encode())
    return target


def report_data(results: Path) -> dict[str, Any]:
    """What the page shows, as JSON."""
    names = [*_FIXED, *columns(results)]
    rows: list[list[Any]] = []
    structures: dict[int, Any] = {}
    statuses, reasons = Counter[str](), Counter[tuple[str, str]]()
    n_structures = 0
    for record in records(results):
        statuses[record.status] += 1
        if record.status == FAILED:
            reasons[record.task, record.reason] += 1
        n_structures += record.atoms is not None
        if len(rows) >= MOST_ROWS:
            continue
        row = [getattr(record, name) for name in _FIXED] + [_plain(record.values.get(name)) for name in names[6:]]
        if record.atoms is not None and len(structures) < MOST_STRUCTURES:
            atoms = record.atoms
            structures[len(rows)] = {
                "s": atoms.get_chemical_symbols(),
                "x": atoms.positions.round(4).tolist(),
                "c": atoms.cell.array.round(4).tolist(),
            }
        rows.append(row)
    if not rows:
        raise ValueError(f"results: {results} holds no records")
    with opened(results) as connection:
        settings = read_settings(connection) or {}
    return {
        "name": results.name,
        "settings": settings,
        "counts": dict(statuses),
        "done": statuses[DONE],
        "total": sum(statuses.values()),
        "reasons": [[task, reason, number] for (task, reason), number in reasons.most_common()],
        "columns": names,
        "units": units(settings.get("tasks", ())),
        "rows": rows,
        "structures": structures,
        "n_structures": n_structures,
        "elements": _elements(structures),
    }


def _plain(value: Any) -> Any:
    """Numbers (finite), texts and flags as they are, anything else as text."""
    if isinstance(value, float):
        return float(f"{value:.8g}") if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (int, str, bool)) else json.dumps(value)


def _elements(structures: dict[int, Any]) -> dict[str, list[Any]]:
    """Colour and radius (Å) of every element that is drawn."""
    symbols = sorted({symbol for structure in structures.values() for symbol in structure["s"]})
    result: dict[str, list[Any]] = {}
    for symbol in symbols:
        number = atomic_numbers[symbol]
        colour = jmol_colors[number] if number < len(jmol_colors) else (0.5, 0.5, 0.5)
        shade = "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour)
        result[symbol] = [shade, float(covalent_radii[number])]
    return result
