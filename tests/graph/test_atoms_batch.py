from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.core import Lattice, Molecule, Structure

from ase_potnet.graph import batch_structures, build_graph, complete_edges
from ase_potnet.lattice import Coulomb, London, Pauli, pair_sums

from .structures import random_crystal

POTENTIALS = (Coulomb(), London(), Pauli(3.0))


def test_tuples_of_structures():
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))  # four atoms, as a structure has four entries
    arrays = (tuple(atoms.numbers.tolist()), tuple(map(tuple, atoms.positions)), atoms.cell.array, True)
    assert batch_structures(arrays).n_structures == 1
    for several in ((arrays, arrays), (arrays,) * 4, (atoms, arrays), (atoms,) * 4):
        assert batch_structures(several).n_structures == len(several)


def test_ase_pymatgen_and_arrays_agree():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    symbols = atoms.get_chemical_symbols()
    structure = Structure(Lattice(atoms.cell.array), symbols, atoms.positions, coords_are_cartesian=True)
    arrays = (atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.array.tolist(), True)
    batch = batch_structures([atoms, structure, arrays])
    assert batch.n_structures == 3
    assert batch.n_atoms.tolist() == [2, 2, 2]
    assert batch.batch.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.pbc.all()
    for values in (batch.numbers.view(3, -1), batch.positions.view(3, -1), batch.cell.view(3, -1)):
        torch.testing.assert_close(values[1], values[0])
        torch.testing.assert_close(values[2], values[0])


def test_molecules():
    atoms = molecule("H2O")
    same = Molecule(atoms.get_chemical_symbols(), atoms.positions)
    batch = batch_structures([atoms, same, (atoms.numbers, atoms.positions, None, False)])
    assert not batch.pbc.any()
    assert not batch.cell.any()
    torch.testing.assert_close(batch.positions[3:6], batch.positions[:3])


def test_a_batch_does_not_share_memory_with_its_source():
    atoms = bulk("Cu")
    batch = batch_structures(atoms)
    batch.positions.add_(1)
    batch.cell.add_(1)
    batch.numbers.add_(1)
    assert atoms.numbers.tolist() == [29]
    assert not atoms.positions.any()
    np.testing.assert_array_equal(atoms.cell.array, bulk("Cu").cell.array)


def test_a_generator_or_a_tuple_will_do():
    assert batch_structures((bulk("Cu"), bulk("Al"))).n_structures == 2
    assert batch_structures([GOOD, GOOD]).n_structures == 2
    assert batch_structures(GOOD).n_structures == 1
    assert batch_structures(bulk(symbol) for symbol in ("Cu", "Al")).numbers.tolist() == [29, 13]


GOOD = ([29], [[0.0, 0.0, 0.0]], np.eye(3) * 3, True)
FLAT = [[3.0, 0, 0], [3.0, 1e-8, 0], [0, 0, 3.0]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Atoms(), "at least one atom"),
        (([0], *GOOD[1:]), "atomic numbers from 1 to 118, got 0"),
        (([119], *GOOD[1:]), "atomic numbers from 1 to 118, got 119"),
        (([6.5], *GOOD[1:]), "integer atomic numbers"),
        ((["C"], *GOOD[1:]), "integer atomic numbers"),
        ((GOOD[0], [[0.0, np.nan, 0.0]], *GOOD[2:]), "finite positions"),
        ((GOOD[0], [[0.0, 0.0]], *GOOD[2:]), r"positions \(N, 3\)"),
        ((*GOOD[:2], np.full((3, 3), np.inf), True), "finite cell"),
        ((*GOOD[:2], np.eye(2), True), r"cell \(3, 3\)"),
        ((*GOOD[:2], None, True), "independent periodic lattice vectors"),
        ((*GOOD[:2], FLAT, True), "independent periodic lattice vectors"),
        ((*GOOD[:2], [[3, 0, 0], [3, 0, 0], [0, 0, 3]], (True, True, False)), "independent periodic lattice vectors"),
        ((*GOOD[:2], np.eye(3), (True, False)), "as arrays"),
        ("Cu", "got str"),
        (3, "got int"),
    ],
)
def test_a_bad_structure_is_named(bad, message):
    with pytest.raises(ValueError, match=rf"structures\[2\] .*{message}"):
        batch_structures([bulk("Cu"), GOOD, bad])


def test_odd_but_legal_cells():
    cells = [FLAT, [[3, 0, 0], [0, 0, 0], [0, 0, 0]], np.diag([1e3, 1e3, 1e-2]), np.zeros((3, 3))]
    flags = [(True, False, True), (True, False, False), True, False]
    assert batch_structures([(*GOOD[:2], *pair) for pair in zip(cells, flags, strict=True)]).n_structures == 4


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one structure"):
        batch_structures([])


def test_partial_occupancy_is_refused():
    disordered = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match=r"structures\[0\] must be ordered"):
        batch_structures(disordered)


def test_complete_edges_are_the_pair_sums():
    structures = [random_crystal(0, 3), random_crystal(1, 1), random_crystal(2, 4, (True, False, True)), molecule("CO")]
    batch = batch_structures(structures)
    pairs = complete_edges(batch, POTENTIALS, 1e-9)
    assert len(pairs) == 9 + 1 + 16 + 4
    first, row = 0, 0
    for atoms in structures:
        n = len(atoms)
        alone = pair_sums(
            torch.from_numpy(atoms.positions),
            torch.from_numpy(atoms.cell.array),
            POTENTIALS,
            pbc=atoms.pbc,
            tolerance=1e-9,
        )
        sums = torch.zeros(n, n, 3, dtype=torch.float64)
        some = slice(row, row + n * n)
        sums[pairs.receiver[some] - first, pairs.sender[some] - first] = pairs.sums[some]
        torch.testing.assert_close(sums, alone, atol=2e-9, rtol=0)
        first, row = first + n, row + n * n


def test_build_graph():
    structures = [random_crystal(0, 3), bulk("Cu")]
    graph = build_graph(structures, cutoff=4.0, potentials=POTENTIALS)
    assert graph.edges is not None
    assert graph.pairs is not None
    assert graph.pairs.sums.shape == (10, 3)
    bare = build_graph(graph.atoms)
    assert bare.atoms is graph.atoms
    assert bare.edges is None
    assert bare.pairs is None
    assert len(build_graph(structures, n_nearest=2).edges) == 8
    assert (
        build_graph(structures, potentials=Coulomb(), dtype=torch.float32, tolerance=1e-4).pairs.sums.dtype
        == torch.float32
    )
    with pytest.raises(ValueError, match="cutoff and n_nearest exclude each other"):
        build_graph(structures, cutoff=4.0, n_nearest=2)


@pytest.mark.parametrize("pbc", ["FFF", ["T", "F", "F"], (0.3, 2, -1), (True, False), None])
def test_flags_that_are_no_flags(pbc: Any) -> None:
    with pytest.raises(ValueError, match=r"structures\[0\] must hold .*pbc"):
        batch_structures([([29], [[0.0, 0, 0]], np.eye(3) * 3, pbc)])


@pytest.mark.parametrize(("pbc", "expected"), [(1, True), (False, False), (np.array([1, 0, 1]), [True, False, True])])
def test_flags_may_be_numbers(pbc: Any, expected: Any) -> None:
    batch = batch_structures([([29], [[0.0, 0, 0]], np.eye(3) * 3, pbc)])
    np.testing.assert_array_equal(batch.pbc[0], expected)


def test_tensors_with_gradients_are_an_error() -> None:
    positions = torch.zeros(1, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"structures\[0\] must hold .*grad"):
        batch_structures([([29], positions, np.eye(3) * 3, True)])
