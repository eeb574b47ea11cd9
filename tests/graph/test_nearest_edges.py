from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from ase_potnet.graph import batch_structures, local_edges, nearest_edges

from .structures import random_crystal


def neighbours(atoms: Atoms, **options) -> list[set[tuple[float, ...]]]:
    """For every atom, number and rounded vector of each chosen neighbour."""
    batch = batch_structures(atoms)
    edges = nearest_edges(batch, **options)
    rows = np.column_stack((batch.numbers[edges.sender], edges.vectors(batch))).round(3) + 0.0
    return [set(map(tuple, rows[edges.receiver.numpy() == i])) for i in range(len(atoms))]


@pytest.mark.parametrize("n_nearest", [1, 5, 16])
def test_no_closer_atom_is_left_out(n_nearest):
    batch = batch_structures([random_crystal(seed, 1 + seed) for seed in range(6)])
    edges = nearest_edges(batch, n_nearest)
    assert torch.bincount(edges.receiver).tolist() == [n_nearest] * len(batch.numbers)
    distance = torch.linalg.vector_norm(edges.vectors(batch), dim=1).view(-1, n_nearest)
    assert (distance.diff(dim=1) > -1e-4).all()
    everything = local_edges(batch, 9.0)
    lengths = torch.linalg.vector_norm(everything.vectors(batch), dim=1)
    for atom, found in enumerate(distance):
        closest = lengths[everything.receiver == atom].sort().values[:n_nearest]
        torch.testing.assert_close(found.sort().values, closest)


@pytest.mark.parametrize("n_nearest", [1, 4, 7, 16])
def test_ties_depend_neither_on_order_nor_on_origin_nor_on_cell(n_nearest):
    atoms = bulk("NaCl", "rocksalt", a=5.6401, cubic=True)  # a/2 lies between two multiples of 1e-4
    wanted = neighbours(atoms, n_nearest=n_nearest)
    order = np.random.default_rng(0).permutation(len(atoms))
    again = neighbours(atoms[order], n_nearest=n_nearest)
    assert [again[k] for k in np.argsort(order)] == wanted
    moved = atoms.copy()
    moved.positions += [0.123456, 7.7, -0.333]
    moved.wrap()
    assert neighbours(moved, n_nearest=n_nearest) == wanted
    primitive = bulk("NaCl", "rocksalt", a=5.6401)
    assert neighbours(primitive, n_nearest=n_nearest) == wanted[:2]


def test_whole_shells_do_not_depend_on_orientation():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    edges = nearest_edges(batch_structures(atoms), 16, ties="shell")
    assert torch.bincount(edges.receiver).tolist() == [18, 18]  # 6 and 12
    assert len(nearest_edges(batch_structures(atoms), 18, ties="shell")) == 36
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    lengths = [
        np.sort(np.linalg.norm([row[1:] for row in found], axis=1))
        for found in neighbours(turned, n_nearest=16, ties="shell")
    ]
    np.testing.assert_allclose(lengths[0], [2.82] * 6 + [2.82 * 2**0.5] * 12, atol=2e-3)


def test_cut_prefers_light_elements():
    atoms = Atoms("HAuLiAuLi", positions=[[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, -2, 0], [-2, 0, 0]])
    batch = batch_structures(atoms)
    edges = nearest_edges(batch, 2)
    assert batch.numbers[edges.sender[edges.receiver == 0]].tolist() == [3, 3]


def test_molecules_in_a_batch_of_crystals():
    far = molecule("H2O") + molecule("CO")
    far.positions[3:] += 300.0
    structures = [molecule("CH4"), bulk("Cu"), far, Atoms("He"), bulk("Ne", a=9.0)]
    edges = nearest_edges(batch_structures(structures), 16)
    assert torch.bincount(edges.receiver, minlength=13).tolist() == [4] * 5 + [16] + [4] * 5 + [0] + [16]


def test_an_atom_in_a_huge_cell_has_neighbours():
    atoms = Atoms("Ar", cell=np.diag([40.0, 45.0, 50.0]), pbc=True)
    found = neighbours(atoms, n_nearest=4)[0]
    assert {np.abs(row[1:]).max() for row in found} == {40.0, 45.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_nearest": 0}, "n_nearest must be a positive integer"),
        ({"n_nearest": True}, "n_nearest must be a positive integer"),
        ({"n_nearest": 2.0}, "n_nearest must be a positive integer"),
        ({"ties": "random"}, "ties must be 'cut' or 'shell'"),
        ({"first_cutoff": -1.0}, "first_cutoff must be a positive number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nearest_edges(batch_structures(bulk("Cu")), **options)
