"""CIF text: the small parser against pymatgen and ASE."""

from __future__ import annotations

import csv
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.geometry import cell_to_cellpar
from ase.io.cif import read_cif

from ase_potnet.readers.cif import cell_vectors, parse_cif, parse_p1
from ase_potnet.readers.structure_files import read_structure


@pytest.fixture(scope="module")
def texts() -> list[str]:
    samples = Path(__file__).parents[1] / "data"
    with (samples / "mp_cif_sample.csv").open(encoding="utf-8") as file:
        return [row["cif"] for row in csv.DictReader(file)]


def test_fast_path_agrees_with_pymatgen(texts: list[str]) -> None:
    cif = pytest.importorskip("pymatgen.io.cif")
    assert len(texts) == 12
    for text in texts:
        atoms = parse_p1(text)
        assert atoms is not None
        structure = cif.CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
        np.testing.assert_allclose(atoms.cell.array, structure.lattice.matrix, rtol=0, atol=1e-9)
        assert sorted(atoms.numbers) == sorted(structure.atomic_numbers)
        distances = structure.lattice.get_all_distances(atoms.get_scaled_positions(), structure.frac_coords)
        nearest = distances.argmin(axis=1)
        assert sorted(nearest) == list(range(len(atoms)))
        assert distances.min(axis=1).max() < 1e-6
        np.testing.assert_array_equal(atoms.numbers, np.array(structure.atomic_numbers)[nearest])


def test_fast_path_agrees_with_ase(texts: list[str]) -> None:
    for text in texts:
        atoms = parse_p1(text)
        assert atoms is not None
        other = read_cif(io.StringIO(text), index=0)
        np.testing.assert_allclose(atoms.cell.cellpar(), other.cell.cellpar(), rtol=1e-9)
        np.testing.assert_array_equal(atoms.numbers, other.numbers)
        shifts = atoms.get_scaled_positions(wrap=False) - other.get_scaled_positions(wrap=False)  # ASE's are wrapped
        np.testing.assert_allclose(shifts, np.rint(shifts), rtol=0, atol=1e-12)


def cubic(a: float) -> str:
    lengths = "".join(f"_cell_length_{name} {a}\n" for name in "abc")
    return lengths + "".join(f"_cell_angle_{name} 90\n" for name in ("alpha", "beta", "gamma"))


SALT = (
    "data_NaCl\n"
    + cubic(5.64)
    + """_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na+ 0 0 0 {occupancy}
Cl1 Cl- 0.5 0.5 0.5 1
"""
)


def test_symmetry_goes_to_ase() -> None:
    text = SALT.format(occupancy=1)
    assert parse_p1(text) is None
    atoms = parse_cif(text)
    assert atoms.get_chemical_formula() == "Cl4Na4"
    np.testing.assert_allclose(atoms.cell.cellpar(), [5.64] * 3 + [90] * 3)
    assert atoms.get_all_distances(mic=True)[0][4:].min() == pytest.approx(2.82)


@pytest.mark.parametrize(
    "change",
    [
        ("Cl1 Cl-", "# the anion\nCl1 Cl-"),
        ("Cl1 Cl-", "\nCl1 Cl-"),
        ("_H-M 'F m", "_H-M\t'F m"),
        ("_symmetry_space_group_name_H-M 'F m -3 m'\n", ""),
        ("_symmetry_Int_Tables_number 225", "_space_group_IT_number\t225"),
        ("_symmetry_Int_Tables_number 225", "_space_group_it_number 225"),
        ("_symmetry_space_group_name_H-M", "_SYMMETRY_space_group_name_h-m"),
        ("loop_", "loop_ # sites"),
    ],
)
def test_no_layout_loses_sites_or_symmetry(change: tuple[str, str]) -> None:
    text = SALT.format(occupancy=1).replace(*change)
    assert parse_p1(text) is None
    assert parse_cif(text).get_chemical_formula() == "Cl4Na4"


@pytest.mark.parametrize("group", ["'F m -3 m'", "'P 1'"])
def test_partial_occupancy_is_refused(group: str) -> None:
    text = SALT.format(occupancy=0.5).replace("'F m -3 m'", group)
    text = text.replace("225", "1") if group == "'P 1'" else text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ASE's, about occupancies
        with pytest.raises(ValueError, match="occupied partially"):
            parse_cif(text)


def test_other_forms_are_left_to_others(texts: list[str]) -> None:
    text = texts[0]
    assert parse_p1(text.replace("'x, y, z'", "'-x, y, z'")) is None
    assert parse_p1(text + text) is None
    assert parse_p1(text.replace("4.", "4.1(2)", 1)) is None or "4." not in text
    assert parse_p1("") is None
    assert parse_p1(text.replace("_atom_site_type_symbol", "_atom_site_other")) is None


def test_no_cif(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_cif("nothing of the kind")
    monkeypatch.setitem(sys.modules, "pymatgen.io.cif", None)  # as if not installed
    with pytest.raises(ValueError, match="pip install pymatgen"):
        parse_cif("nothing of the kind")


SILICON = (
    "data_x\n{symmetry}\n"
    + cubic(5.43)
    + """loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 Si1 Si 0.125 0.125 0.125
"""
)


def test_symmetry_that_nobody_understands_is_an_error() -> None:
    assert len(parse_cif(SILICON.format(symmetry="_symmetry_space_group_name_H-M 'F d -3 m'"))) > 1
    with pytest.raises(ValueError, match=r"symmetry is not understood .*F d -3 m :2"):
        parse_cif(SILICON.format(symmetry="_symmetry_space_group_name_H-M 'F d -3 m :2'"))
    with pytest.raises(ValueError, match="Hall symbol"):
        parse_cif(SILICON.format(symmetry="_space_group_name_Hall '-F 4 2 3'"))
    for hall in ("'P 1'", "?"):
        assert len(parse_cif(SILICON.format(symmetry=f"_space_group_name_Hall {hall}"))) == 1
    assert len(parse_cif(SILICON.format(symmetry=""))) == 1


def test_cell_vectors() -> None:
    parameters = (3.1, 4.2, 5.3, 81.0, 97.0, 112.0)
    np.testing.assert_allclose(cell_to_cellpar(cell_vectors(*parameters)), parameters, rtol=1e-12)
    assert np.linalg.det(cell_vectors(*parameters)) > 0
    with pytest.raises(ValueError, match="no cell has angles"):
        cell_vectors(1, 1, 1, 60, 60, 150)
    with pytest.raises(ValueError, match="cell angles"):
        cell_vectors(1, 1, 1, 180, 60, 60)


def test_other_encodings_of_comments(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.cif").write_bytes(("# Müller, 4.2 Å\n" + texts[0]).encode("latin-1"))
    assert read_structure(tmp_path / "old.cif") == parse_cif(texts[0])
