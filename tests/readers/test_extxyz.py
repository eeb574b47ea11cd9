from __future__ import annotations

from pathlib import Path

from ase_potnet.readers.extxyz import extxyz_entries


def test_deuterium_is_hydrogen(tmp_path: Path) -> None:
    lattice = "4 0 0 0 4 0 0 0 4"
    text = f'2\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\nLi 0 0 0\nD 2 2 2\n'
    (tmp_path / "lithium deuteride.xyz").write_text(text)
    (entry,) = extxyz_entries(tmp_path / "lithium deuteride.xyz")
    assert entry.build().get_chemical_symbols() == ["Li", "H"]
