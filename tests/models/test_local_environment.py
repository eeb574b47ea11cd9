"""Places of the neighbours."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from torch import Tensor

from ase_potnet.graph import AtomsBatch, PairCutoffs, batch_structures, local_edges
from ase_potnet.models.derivatives import differentiate
from ase_potnet.models.equivariant_potnet import EquivariantPotNet, EquivariantPotNetConfig
from ase_potnet.models.local_environment import Places, grouped_places, padded_places

SALT = bulk("NaCl", "rocksalt", a=5.6).repeat((2, 1, 1))


@pytest.mark.parametrize(("structure", "cutoff"), [(SALT, 2.9), (molecule("C2H6"), 1.7)])
def test_far_places_are_cut_off(structure: Atoms, cutoff: float) -> None:
    structure = structure.copy()
    atoms = batch_structures(structure)
    edges = local_edges(atoms, 4.5)
    wide = padded_places(edges, atoms, PairCutoffs.of(cutoff)).sorted(atoms)
    structure.rattle(0.1, seed=0)  # the order of distances is that of before
    atoms = batch_structures(structure)
    exact = padded_places(local_edges(atoms, cutoff), atoms, PairCutoffs.of(cutoff))
    near = wide.within(atoms)
    assert exact.senders.shape[1] <= near.senders.shape[1] < wide.senders.shape[1]

    def distances(places: Places) -> Tensor:
        columns: Tensor = places.vectors(atoms).norm(dim=2).sort(dim=1).values.clamp(max=cutoff)
        return columns[:, : exact.senders.shape[1]]

    torch.testing.assert_close(distances(near), distances(exact))


def test_two_places_remain_without_neighbours() -> None:
    atoms = batch_structures(Atoms("He2", [[0, 0, 0], [0, 0, 3.0]]))
    wide = padded_places(local_edges(atoms, 4.0), atoms, PairCutoffs.of(2.0))
    near = wide.within(atoms)
    assert near.senders.shape == (2, 2)
    assert float(near.vectors(atoms).norm(dim=2).min()) >= 2.0


@pytest.fixture(scope="module")
def mixed() -> AtomsBatch:
    """Dense and open crystals, a slab, a molecule and an atom alone."""
    slab = fcc111("Cu", (2, 2, 3), a=3.6, vacuum=8.0)
    crystals = [bulk("Cu", a=3.6).repeat((2, 2, 1)), bulk("Si", a=5.4).repeat((3, 2, 2)), SALT, bulk("Na", a=4.2)]
    return batch_structures([slab, molecule("C2H6"), *crystals, Atoms("Ar")])


def test_groups_leave_few_places_empty(mixed: AtomsBatch) -> None:
    edges = local_edges(mixed, 5.0)
    groups = grouped_places(edges, mixed, PairCutoffs.of(5.0))
    together = padded_places(edges, mixed, PairCutoffs.of(5.0))
    assert len(groups) > 1
    n_places = sum(group.senders.numel() for group in groups)
    assert len(edges) > 0.8 * n_places
    assert n_places < 0.75 * together.senders.numel()
    receivers = torch.cat([group.receivers for group in groups if group.receivers is not None])
    assert sorted(receivers.tolist()) == list(range(len(mixed.numbers)))


@pytest.mark.parametrize("absolute", [False, True])
def test_groups_change_no_number(mixed: AtomsBatch, absolute: bool) -> None:
    torch.manual_seed(0)
    model = EquivariantPotNet(EquivariantPotNetConfig(width=8, message_width=(4, 2, 2), absolute=absolute)).double()
    together = padded_places(local_edges(mixed, model.cutoffs), mixed, model.cutoffs)
    grouped, expected = differentiate(model, mixed), differentiate(lambda moved: model(moved, together), mixed)
    torch.testing.assert_close(grouped.energies, expected.energies, rtol=0, atol=1e-12)
    torch.testing.assert_close(grouped.forces, expected.forces, rtol=0, atol=1e-12)
    torch.testing.assert_close(grouped.stress, expected.stress, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("change", ["sorted", "within"])
def test_a_group_stays_one(mixed: AtomsBatch, change: str) -> None:
    for group in grouped_places(local_edges(mixed, 5.0), mixed, PairCutoffs.of(2.0)):
        changed = group.sorted(mixed) if change == "sorted" else group.sorted(mixed).within(mixed)
        assert changed.receivers is group.receivers


def test_atoms_without_neighbours_in_a_crystal_have_images() -> None:
    atoms = batch_structures(bulk("Ar", cubic=True, a=30.0))
    places = padded_places(local_edges(atoms, 5.0), atoms, PairCutoffs.of(5.0))
    assert places.images is not None
    assert places.images.shape == (4, 2, 3)
    assert not places.images.any()
