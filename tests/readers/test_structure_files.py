from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from ase_potnet.readers.structure_files import read_structure, structure_entries


@pytest.mark.parametrize(
    ("name", "form"), [("Mg@O.vasp", "vasp"), ("POSCAR@300K", "vasp"), ("MgO@1.xsf", "xsf"), ("a@b.res", "res")]
)
def test_an_at_sign_belongs_to_the_name(name: str, form: str, tmp_path: Path) -> None:
    atoms = bulk("MgO", "rocksalt", a=4.2)
    write(tmp_path / name, atoms, format=form)
    (entry,) = structure_entries(tmp_path / name)
    for found in (entry.build(), read_structure(tmp_path / name)):
        assert found.get_chemical_formula() == "MgO"
        assert found.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-4)
