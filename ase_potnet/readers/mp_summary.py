"""Materials Project summary documents: a JSON list of dicts with `structure` as a pymatgen dict."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_potnet.readers.entry import ID_KEYS, Entry
from ase_potnet.readers.files import Progress, iter_json, open_text
from ase_potnet.readers.structures import crystal

OCCUPIED = 1e-3  # a site's occupancy may differ from 1 by this


def mp_summary_entries(path: Path, progress: Progress) -> Generator[Entry, None, None]:
    """The summary documents of a JSON list."""
    with open_text(path, progress=progress) as stream:
        for i, item in enumerate(iter_json(stream, str(path))):
            fields = item if isinstance(item, dict) else {}
            values = _flat({key: value for key, value in fields.items() if key != "structure"})
            name = next((str(values.pop(key)) for key in ("material_id", *ID_KEYS) if key in values), f"entry-{i}")
            yield Entry(name, values, partial(pymatgen_atoms, fields.get("structure")))


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, those of a dict one level down as 'outer.inner'."""
    values: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            values.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            values[key] = value
    return values


def pymatgen_atoms(data: Mapping[str, Any] | None) -> Atoms:
    """ASE atoms from the dict that pymatgen's `Structure.as_dict` writes; pymatgen is not needed."""
    if not isinstance(data, Mapping) or "lattice" not in data or "sites" not in data:
        raise ValueError("no 'structure' with lattice and sites")
    symbols = []
    for i, site in enumerate(data["sites"]):
        species = site["species"]
        if len(species) != 1 or abs(species[0].get("occu", 1) - 1) > OCCUPIED:
            raise ValueError(f"site {i} is occupied partially")
        symbols.append(species[0]["element"])
    lattice = data["lattice"]
    scaled = [site["abc"] for site in data["sites"]]
    return crystal(symbols, lattice["matrix"], scaled=scaled, pbc=lattice.get("pbc", True))
