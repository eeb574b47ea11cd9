"""JARVIS-DFT in its native layout: `jdft_3d-*.json`, zipped or not."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from .collect import ID_KEYS, Entry, collect
from .dataset import Dataset
from .files import Progress, iter_json, open_text
from .structures import crystal


def read_jarvis(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """A JSON list of entries with `jid`, `atoms` (JARVIS layout) and properties, 'na' where there is none.

    Units are those of JARVIS-DFT: formation_energy_peratom and optb88vdw_total_energy eV/atom, band gaps eV,
    bulk_modulus_kv GPa; see https://jarvis.nist.gov. Arguments: see `open_dataset`.
    """
    return collect(_entries(Path(path), progress), targets=targets, limit=limit, source=path)


def _entries(path: Path, progress: Progress) -> Generator[Entry, None, None]:
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
