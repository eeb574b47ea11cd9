"""Writes element_data.json, the table behind ``element_features``: `python -m ase_potnet.models.make_element_data`.

Needs pymatgen, whose table of the elements (MIT licence) gives electronegativity (Pauling), first ionisation energy,
electron affinity, molar volume, electronic structure, group, period and block. Covalent radii are those of
Cordero et al., Dalton Trans. 2008, 2832, as in ase.data. Unknown values are null.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("element_data.json")
SOURCE = "pymatgen table of the elements (MIT licence); covalent radii: Cordero et al., Dalton Trans. 2008, 2832"
COLUMNS = (
    "group",
    "period",
    "electronegativity",
    "covalent_radius_pm",
    "valence_electrons",
    "ionisation_energy_eV",
    "electron_affinity_eV",
    "block",
    "molar_volume_cm3",
)
F_BLOCK = {*range(57, 71), *range(89, 103)}  # La to Yb, Ac to No: no group


def valence_electrons(structure: str, block: str) -> int | None:
    """Electrons outside the noble-gas core, without filled d and f shells below p electrons; at most 12."""
    shells = [(int(n), kind, int(count)) for n, kind, count in re.findall(r"(\d)([spdf])(\d+)", structure)]
    if not shells:
        return None
    if block in "sp":
        last = max(n for n, _, _ in shells)
        return sum(count for n, kind, count in shells if n == last and kind in "sp")
    closed = 14 if block == "d" else 0
    return min(12, sum(count for _, kind, count in shells if not (kind == "f" and count == closed)))


def row(number: int) -> list[Any]:
    """The columns of one element."""
    from ase.data import covalent_radii
    from pymatgen.core.periodic_table import Element

    element = Element.from_Z(number)
    block = "s" if number == 2 else element.block  # helium stands among the p block
    if number > 103:  # little but estimates
        return [element.group, element.row, *[None] * 5, block, None]
    data = element.data
    energies = data.get("Ionization energies") or []
    values = [
        0 if number in F_BLOCK else element.group,
        element.row,
        element.X,
        round(100 * covalent_radii[number]) if number <= 96 else None,
        valence_electrons(str((data.get("Electronic structure") or {}).get("0", "")), block),
        energies[0] if energies else None,
        data.get("Electron affinity"),
        block,
        data.get("Molar volume"),
    ]
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def main() -> None:
    """Write the table beside this file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every missing electronegativity
        rows = [json.dumps(row(number)) for number in range(1, 119)]
    head = json.dumps({"source": SOURCE, "columns": COLUMNS})[:-1]
    TARGET.write_text(f'{head}, "elements": [\n' + ",\n".join(rows) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
