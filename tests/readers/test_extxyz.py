from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from ase_potnet.readers.extxyz import extxyz_entries
from ase_potnet.readers.structure_files import read_structure


def test_deuterium_is_hydrogen(tmp_path: Path) -> None:
    lattice = "4 0 0 0 4 0 0 0 4"
    text = f'2\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\nLi 0 0 0\nD 2 2 2\n'
    (tmp_path / "lithium deuteride.xyz").write_text(text)
    (entry,) = extxyz_entries(tmp_path / "lithium deuteride.xyz")
    atoms = entry.build()
    assert atoms.get_chemical_symbols() == ["Li", "H"]
    assert atoms.get_masses() == pytest.approx([6.94, 2.014], abs=1e-3)


def test_isotopes_in_files_that_ase_parses(tmp_path: Path) -> None:
    (tmp_path / "water.xyz").write_text("3\n\n O 0 0 0\n D 0.96 0 0\nT 0 0.96 0\n")
    water = read_structure(tmp_path / "water.xyz")
    assert water.get_chemical_formula() == "H2O"
    assert water.get_masses() == pytest.approx([15.999, 2.014, 3.016], abs=1e-3)
    text = "2\nProperties=pos:R:3:species:S:1:tag:S:1\n0 0 0 O D\n0 0 1 H T\n"
    (tmp_path / "other.xyz").write_text(text)
    assert read_structure(tmp_path / "other.xyz").arrays["tag"].tolist() == ["D", "T"]


def test_masses_in_the_file_count(tmp_path: Path) -> None:
    (tmp_path / "own.xyz").write_text("1\nProperties=species:S:1:pos:R:3:masses:R:1\nD 0 0 0 2.5\n")
    assert read_structure(tmp_path / "own.xyz").get_masses() == pytest.approx([2.5])


def test_the_last_of_several_frames(tmp_path: Path) -> None:
    write(tmp_path / "path.extxyz", [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)])
    assert read_structure(tmp_path / "path.extxyz").cell[0, 1] == pytest.approx(1.85)
    (tmp_path / "empty.xyz").write_text("\n")
    with pytest.raises(ValueError, match="no structure in it"):
        read_structure(tmp_path / "empty.xyz")
