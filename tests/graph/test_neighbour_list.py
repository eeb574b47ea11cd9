"""The list with a skin gives the edges of a fresh search, whatever happened before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

from ase_potnet.graph import Edges, NeighbourList, PairCutoffs, batch_structures, local_edges
from ase_potnet.graph import neighbour_list as module

CUTOFF = 4.5


def as_set(edges: Edges) -> set[tuple[int, ...]]:
    rows = zip(edges.receiver.tolist(), edges.sender.tolist(), *edges.image.int().T.tolist(), strict=True)
    return set(rows)


def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.6, cubic=True)


def test_the_edges_are_those_of_a_fresh_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []

    def counted(*arguments: object) -> Edges:
        searches.append(arguments)
        return local_edges(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "local_edges", counted)
    neighbours, rng, atoms = NeighbourList(CUTOFF, 0.6), np.random.default_rng(0), salt()
    for _ in range(60):
        atoms.positions += rng.normal(scale=0.02, size=(8, 3))
        batch = batch_structures(atoms)
        edges = neighbours.edges(batch)
        assert as_set(edges) == as_set(local_edges(batch, CUTOFF))
        assert bool((edges.receiver.diff() >= 0).all())
    assert 1 < len(searches) < 30


def test_cutoffs_of_pairs() -> None:
    cutoffs = PairCutoffs(3.0, 1.7 * torch.tensor(covalent_radii))
    neighbours, rng, atoms = NeighbourList(cutoffs, 0.6), np.random.default_rng(0), salt()
    for _ in range(10):
        atoms.positions += rng.normal(scale=0.02, size=(8, 3))
        batch = batch_structures(atoms)
        assert as_set(neighbours.edges(batch)) == as_set(local_edges(batch, cutoffs))


@pytest.mark.parametrize("change", ["cell", "species", "atom", "pbc"])
def test_another_system_is_searched_again(change: str) -> None:
    neighbours, atoms = NeighbourList(CUTOFF, 0.6), salt()
    neighbours.edges(batch_structures(atoms))
    if change == "cell":
        atoms.set_cell(atoms.cell * 1.01, scale_atoms=False)
    elif change == "species":
        atoms.numbers[0] = 3
    elif change == "atom":
        del atoms[0]
    else:
        atoms.pbc = (True, True, False)
    batch = batch_structures(atoms)
    assert as_set(neighbours.edges(batch)) == as_set(local_edges(batch, CUTOFF))


def test_without_a_skin_every_call_searches() -> None:
    neighbours, atoms = NeighbourList(CUTOFF, 0.0), salt()
    for shift in (0.0, 0.3):
        atoms.positions[0] += shift
        batch = batch_structures(atoms)
        assert as_set(neighbours.edges(batch)) == as_set(local_edges(batch, CUTOFF))
