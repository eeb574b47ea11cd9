"""JARVIS-DFT in its native layout: `jdft_3d-*.json`, zipped or not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.files import Progress
from ase_potnet.readers.jarvis import jarvis_entries

from .collect import collect
from .dataset import Dataset


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
    return collect(jarvis_entries(Path(path), progress), targets=targets, limit=limit, source=path)
