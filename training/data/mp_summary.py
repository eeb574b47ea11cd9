"""Materials Project summary documents: a JSON list of dicts with `structure` as a pymatgen dict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_potnet.readers.files import Progress
from ase_potnet.readers.mp_summary import mp_summary_entries

from .collect import collect
from .dataset import Dataset


def read_mp_summary(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """Summary documents as mp-api returns them, saved as JSON; `fetch_materials_project` writes such a file.

    Numbers one level down are targets too, under joined names: `bulk_modulus.vrh`. Units are those of the
    Materials Project: formation_energy_per_atom eV/atom, band_gap eV, energy_above_hull eV/atom, moduli GPa.
    Arguments: see `open_dataset`.
    """
    return collect(mp_summary_entries(Path(path), progress), targets=targets, limit=limit, source=path)
