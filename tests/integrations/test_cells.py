"""Supercells and relaxation."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup import crystal
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import get_supercell

from ase_potnet.integrations import relax, supercell_matrix
from ase_potnet.integrations.potnet_mlp import to_phonopy
from ase_potnet.integrations.relaxation import symmetrised

from . import lennard_jones

FCC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])


def supercell_of(atoms: Atoms) -> PhonopyAtoms:
    """What phonopy makes of the automatic matrix."""
    return get_supercell(to_phonopy(atoms), supercell_matrix(atoms))


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("NaCl", "rocksalt", a=5.64), 2 * FCC),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), 2 * np.eye(3)),
        (bulk("Cu", "fcc", a=3.6), 3 * FCC),
        (bulk("ZnO", "wurtzite", a=3.25, c=5.2), np.diag([4, 4, 2])),  # heights 3.25 √3/2 Å
        (bulk("Cu", "fcc", a=3.6, cubic=True).repeat((3, 1, 1)), np.diag([1, 3, 3])),
    ],
)
def test_auto_is_the_least_multiple_of_the_conventional_cell(atoms: Atoms, expected: np.ndarray) -> None:
    found = supercell_of(atoms)
    assert len(found) == len(atoms) * abs(round(np.linalg.det(expected)))
    lengths = np.sort(np.linalg.norm(found.cell, axis=1))
    np.testing.assert_allclose(lengths, np.sort(np.linalg.norm(expected @ atoms.cell.array, axis=1)))
    assert set(np.round(Atoms(cell=found.cell).cell.angles())) <= {90, 120}


@pytest.mark.parametrize(
    ("number", "basis", "cellpar"),
    [
        (166, (0, 0, 0.2335), (4.307, 4.307, 11.273, 90, 90, 120)),  # Sb
        (141, (0, 0, 0.2), (3.8, 3.8, 9.5, 90, 90, 90)),
        (12, (0.15, 0, 0.3), (9.0, 3.4, 6.0, 90, 105, 90)),
        (43, (0.1, 0.2, 0.3), (5.0, 7.0, 9.0, 90, 90, 90)),
        (229, (0, 0, 0), (3.2, 3.2, 3.2, 90, 90, 90)),
    ],
)
def test_supercells_of_primitive_cells_are_those_of_conventional_ones(
    number: int, basis: tuple[float, ...], cellpar: tuple[float, ...]
) -> None:
    """Of phonopy, whose matrices hold vectors in columns; nothing shows that where they are symmetric."""
    conventional = crystal(["Sb"], [basis], spacegroup=number, cellpar=cellpar)
    primitive = crystal(["Sb"], [basis], spacegroup=number, cellpar=cellpar, primitive_cell=True)
    assert len(primitive) < len(conventional)
    found, expected = supercell_of(primitive), supercell_of(conventional)
    assert len(found) == len(expected)
    heights = 1 / np.linalg.norm(np.linalg.inv(found.cell), axis=0)
    assert heights.min() >= 10.0 - 1e-6
    np.testing.assert_allclose(np.sort(heights), np.sort(1 / np.linalg.norm(np.linalg.inv(expected.cell), axis=0)))


def test_other_heights_and_matrices() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    assert round(np.linalg.det(supercell_matrix(atoms, 12.0))) == 4 * 27
    np.testing.assert_array_equal(supercell_matrix(atoms, (2, 3, 4)), np.diag([2, 3, 4]))
    np.testing.assert_array_equal(supercell_matrix(atoms, FCC.tolist()), FCC)


def test_elements_whose_mass_phonopy_does_not_know() -> None:
    atoms = bulk("Po", "sc", a=3.35)
    np.testing.assert_array_equal(supercell_matrix(atoms), 3 * np.eye(3))
    np.testing.assert_array_equal(to_phonopy(atoms).masses, atoms.get_masses())
    known = bulk("NaCl", "rocksalt", a=5.64)
    np.testing.assert_array_equal(to_phonopy(known).masses, PhonopyAtoms(symbols=["Na", "Cl"], cell=known.cell.array,
                                  scaled_positions=known.get_scaled_positions()).masses)  # fmt: skip


@pytest.mark.parametrize("wrong", ["big", 0.0, -3.0, np.nan, (2, 2), (0, 1, 1), (1.5, 1, 1), np.ones((3, 3)), None])
def test_wrong_supercells(wrong: object) -> None:
    with pytest.raises(ValueError, match="supercell: wanted"):
        supercell_matrix(bulk("Cu", "fcc", a=3.6), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, np.int64(5)])
def test_a_length_or_a_number_of_cells(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"supercell: 5 is ambiguous; write 5.0 for a height in Å, or \(5, 5, 5\)"):
        supercell_matrix(bulk("Cu", "fcc", a=3.6), wrong)


def test_relaxation_finds_what_ase_finds() -> None:
    atoms = bulk("Ar", "hcp", a=3.4, c=5.3)
    found = relax(atoms, lennard_jones.model(), fmax=1e-5)
    atoms.calc = lennard_jones.ase_calculator()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5)
    assert found.converged
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(found.atoms.cell.cellpar(), atoms.cell.cellpar(), atol=1e-3)
    assert found.force < 1e-5
    assert found.stress < 1e-4
    assert found.atoms.calc is None
    assert not found.atoms.constraints


def test_relaxation_keeps_the_symmetry() -> None:
    """A crystal that is soft against leaving its group: simple cubic Lennard-Jones."""
    atoms = bulk("Ar", "sc", a=3.3).repeat((2, 1, 1))
    atoms.rattle(1e-4, seed=1)
    found = relax(atoms, lennard_jones.model(), symprec=1e-2)
    cell = (found.atoms.cell.array, found.atoms.get_scaled_positions(), found.atoms.numbers)
    assert spglib.get_spacegroup(cell, symprec=1e-6) == "Pm-3m (221)"
    assert found.converged


def test_atoms_alone_and_shape_alone() -> None:
    atoms = bulk("Ar", "hcp", a=3.5, c=5.4)
    alone = relax(atoms, lennard_jones.model(), cell=False)
    np.testing.assert_allclose(alone.atoms.cell.array, atoms.cell.array, atol=1e-10)
    shape = relax(atoms, lennard_jones.model(), cell="shape")
    assert shape.atoms.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-6)
    assert shape.energy < alone.energy


def test_relaxation_that_stops_early_says_so() -> None:
    found = relax(bulk("Ar", "fcc", a=5.2), lennard_jones.model(), max_steps=1)
    assert not found.converged
    assert found.stress > 0.01


def test_symmetry_is_made_exact() -> None:
    places = [[1 / 3, 2 / 3, 0.25], [0.6667, 0.3333, 0.75]]
    atoms = Atoms("Ar2", scaled_positions=places, cell=[3.4, 3.4, 5.5, 90, 90, 120], pbc=True)
    better = symmetrised(atoms, 1e-2)
    cell = (better.cell.array, better.get_scaled_positions(), better.numbers)
    assert spglib.get_spacegroup(cell, symprec=1e-8) == "P6_3/mmc (194)"
    assert np.abs(better.positions - atoms.positions).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"), [({"cell": "volume"}, "cell"), ({"fmax": 0}, "fmax"), ({"symprec": -1}, "symprec")]
)
def test_wrong_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}: wanted"):
        relax(bulk("Ar", "fcc", a=4.7), lennard_jones.model(), **options)  # type: ignore[arg-type]
