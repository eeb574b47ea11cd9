"""Places of the neighbours."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from ase_potnet.graph import batch_structures, local_edges
from ase_potnet.models.local_environment import Places, padded_places

SALT = bulk("NaCl", "rocksalt", a=5.6).repeat((2, 1, 1))


@pytest.mark.parametrize(("structure", "cutoff"), [(SALT, 2.9), (molecule("C2H6"), 1.7)])
def test_far_places_are_cut_off(structure: Atoms, cutoff: float) -> None:
    structure = structure.copy()
    atoms = batch_structures(structure)
    wide = padded_places(local_edges(atoms, 4.5), atoms, 4.5).sorted(atoms)
    structure.rattle(0.1, seed=0)  # the order of distances is that of before
    atoms = batch_structures(structure)
    exact = padded_places(local_edges(atoms, cutoff), atoms, cutoff)
    near = wide.within(atoms, cutoff)
    assert exact.senders.shape[1] <= near.senders.shape[1] < wide.senders.shape[1]

    def distances(places: Places) -> Tensor:
        columns: Tensor = places.vectors(atoms).norm(dim=2).sort(dim=1).values.clamp(max=cutoff)
        return columns[:, : exact.senders.shape[1]]

    torch.testing.assert_close(distances(near), distances(exact))


def test_two_places_remain_without_neighbours() -> None:
    atoms = batch_structures(Atoms("He2", [[0, 0, 0], [0, 0, 3.0]]))
    wide = padded_places(local_edges(atoms, 4.0), atoms, 4.0)
    near = wide.within(atoms, 2.0)
    assert near.senders.shape == (2, 2)
    assert float(near.vectors(atoms).norm(dim=2).min()) >= 2.0
