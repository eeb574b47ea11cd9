from __future__ import annotations

import numpy as np
import pytest
import torch
import vesin
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from ase_potnet.graph import AtomsBatch, Edges, PairCutoffs, batch_structures, local_edges

from .structures import ALL_PBC, edges_by_ase, odd_cells, pbc_id, random_crystal, sort_rows

CUTOFF = 4.7
ODD = odd_cells()


def rows(edges: Edges) -> np.ndarray:
    return sort_rows(np.column_stack((edges.receiver.numpy(), edges.sender.numpy(), edges.image.numpy())))


@pytest.mark.parametrize("name", ODD)
def test_odd_cells_as_ase(name):
    atoms = ODD[name]
    cutoff = 1.5 if name == "tiny" else CUTOFF
    wanted = edges_by_ase(atoms, cutoff)
    assert len(wanted) > 0
    np.testing.assert_array_equal(rows(local_edges(batch_structures(atoms), cutoff)), wanted)


@pytest.mark.parametrize("name", sorted(set(ODD) - {"tiny"}))
def test_odd_cells_as_vesin(name):
    atoms = ODD[name]
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    search = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
    i, j, image = search.compute(atoms.positions, cell, atoms.pbc.tolist(), "ijS")
    wanted = sort_rows(np.column_stack((i, j, image)))
    np.testing.assert_array_equal(rows(local_edges(batch_structures(atoms), CUTOFF)), wanted)


@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
@pytest.mark.parametrize("cutoff", [2.5, 9.0])
def test_every_periodicity_as_ase(pbc, cutoff):
    for seed in range(4):
        atoms = random_crystal(seed, pbc=pbc)
        np.testing.assert_array_equal(rows(local_edges(batch_structures(atoms), cutoff)), edges_by_ase(atoms, cutoff))


@pytest.mark.parametrize("repeat", [1, 6])  # 6: a cell list
def test_cutoffs_of_pairs_as_ase(repeat: int) -> None:
    cutoffs = PairCutoffs(3.0, 1.7 * torch.tensor(covalent_radii))
    salt = bulk("CsCl", "cesiumchloride", a=4.1) * (repeat, repeat, repeat)
    salt.numbers[0] = 8
    salt.rattle(0.1, seed=0)
    radii = {name: 1.7 * covalent_radii[atomic_numbers[name]] for name in ("Cs", "Cl", "O")}
    pairs = {(a, b): max(3.0, radii[a] + radii[b]) for a in radii for b in radii}
    wanted = edges_by_ase(salt, pairs)
    atoms = [salt, bulk("Cu", a=3.6)]
    edges = local_edges(batch_structures(atoms), cutoffs)
    np.testing.assert_array_equal(rows(edges)[: len(wanted)], wanted)
    copper = edges_by_ase(atoms[1], 2 * 1.7 * covalent_radii[29])
    np.testing.assert_array_equal(rows(edges)[len(wanted) :, 2:], copper[:, 2:])


def test_mixed_batch_is_its_structures_one_by_one():
    structures = [*(random_crystal(seed, 1 + seed, pbc) for seed, pbc in enumerate(ALL_PBC)), *ODD.values()]
    batch = batch_structures(structures)
    edges = local_edges(batch, 3.1)
    parts, first = [], 0
    for atoms in structures:
        alone = rows(local_edges(batch_structures(atoms), 3.1))
        parts.append(alone + np.array([first, first, 0, 0, 0]))
        first += len(atoms)
    np.testing.assert_array_equal(rows(edges), np.concatenate(parts))
    receiver, sender = edges.receiver.numpy(), edges.sender.numpy()
    np.testing.assert_array_equal(np.lexsort((sender, receiver)), np.arange(len(edges)))  # sorted by both


def test_edges_are_as_long_as_ase_says():
    atoms = ODD["skewed"]
    batch = batch_structures(atoms)
    vectors = local_edges(batch, CUTOFF).vectors(batch)
    distance = torch.linalg.vector_norm(vectors, dim=1)
    assert distance.max() < CUTOFF
    from ase.neighborlist import neighbor_list

    np.testing.assert_allclose(np.sort(distance.numpy()), np.sort(neighbor_list("d", atoms, CUTOFF)), rtol=1e-12)


@pytest.mark.parametrize("n_structures", [1, 3])
def test_gradients_through_vectors(n_structures):
    batch = batch_structures([random_crystal(seed, 3, (True, True, False)) for seed in range(n_structures)])
    edges = local_edges(batch, 3.5)
    assert len(edges) > 0

    def vectors(positions, cell):
        return edges.vectors(batch.moved(positions, cell))

    inputs = (batch.positions.clone().requires_grad_(), batch.cell.clone().requires_grad_())
    assert torch.autograd.gradcheck(vectors, inputs)


def test_search_needs_no_gradient():
    batch = batch_structures(random_crystal(0))
    moved = batch.moved(batch.positions.clone().requires_grad_(), batch.cell.clone().requires_grad_())
    assert not local_edges(moved, 4.0).image.requires_grad


def test_no_edges():
    batch = batch_structures([Atoms("H"), Atoms("He2", positions=[[0, 0, 0], [0, 0, 50]])])
    edges = local_edges(batch, 5.0)
    assert len(edges) == 0
    assert edges.vectors(batch).shape == (0, 3)


def test_dtype_and_moves():
    batch = batch_structures([bulk("Fe"), bulk("Si")], dtype=torch.float32)
    edges = local_edges(batch, 4.0)
    assert edges.image.dtype == batch.dtype == edges.vectors(batch).dtype == torch.float32
    double = batch.to(dtype=torch.float64)
    assert (double.dtype, double.positions.dtype, double.cell.dtype) == (torch.float64,) * 3
    assert len(local_edges(double, 4.0)) == len(edges)
    there = batch.to("meta")
    assert {there.numbers.device.type, there.positions.device.type, there.cell.device.type} == {"meta"}
    assert there.batch.device.type == "meta"
    assert there.pbc.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_the_gpu():
    batch = batch_structures([atoms for name, atoms in ODD.items() if name != "large"])
    there = local_edges(batch.to("cuda"), 3.0)
    host = Edges(there.receiver.cpu(), there.sender.cpu(), there.image.cpu())
    np.testing.assert_array_equal(rows(host), rows(local_edges(batch, 3.0)))


@pytest.mark.parametrize("cutoff", [0, -1.0, float("nan"), float("inf"), None, "5"])
def test_bad_cutoff(cutoff):
    with pytest.raises(ValueError, match="cutoff must be a positive number"):
        local_edges(batch_structures(bulk("Cu")), cutoff)


def test_batch_is_the_same_after_selection():
    structures = [random_crystal(seed, 1 + seed) for seed in range(5)]
    part, atoms = batch_structures(structures).select(np.array([3, 1]))
    wanted = batch_structures([structures[3], structures[1]])
    for name in ("numbers", "positions", "cell", "pbc", "batch"):
        torch.testing.assert_close(getattr(part, name), getattr(wanted, name))
    assert isinstance(part, AtomsBatch)
    assert atoms.tolist() == [6, 7, 8, 9, 1, 2]
