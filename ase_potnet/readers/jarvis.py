"""JARVIS-DFT in its native layout: `jdft_3d-*.json`, zipped or not."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_potnet.readers.entry import ID_KEYS, Entry
from ase_potnet.readers.files import Progress, iter_json, open_text
from ase_potnet.readers.structures import crystal


def jarvis_entries(path: Path, progress: Progress) -> Generator[Entry, None, None]:
    """The entries of a JSON list in the layout of JARVIS-DFT."""
    with open_text(path, progress=progress) as stream:
        for i, item in enumerate(iter_json(stream, str(path))):
            fields = item if isinstance(item, dict) else {}
            values = {key: value for key, value in fields.items() if key != "atoms"}
            name = next((str(values.pop(key)) for key in ("jid", *ID_KEYS) if key in values), f"entry-{i}")
            yield Entry(name, values, partial(jarvis_atoms, fields.get("atoms")))


def jarvis_atoms(data: Mapping[str, Any] | None) -> Atoms:
    """ASE atoms from the dict that `jarvis.core.atoms.Atoms.to_dict` writes."""
    if not isinstance(data, Mapping) or not {"lattice_mat", "coords", "elements"} <= data.keys():
        raise ValueError("no 'atoms' with lattice_mat, coords and elements")
    coordinates = {"positions" if data.get("cartesian") else "scaled": data["coords"]}
    return crystal(data["elements"], data["lattice_mat"], **coordinates)
