"""Complete edges: every pair of atoms with the infinite sums of the potentials between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ase_potnet.graph.atoms_batch import AtomsBatch
from ase_potnet.lattice import Potential, complete_pairs, pair_sums


@dataclass(frozen=True)
class CompleteEdges:
    """All pairs (i, j) of atoms of a structure, j = i included, row-major in (i, j).

    receiver: (P,) atom i
    sender: (P,) atom j
    sums: (P, K) sum over all periodic images of j of potential k at i, see ``lattice.pair_sums``
    """

    receiver: Tensor
    sender: Tensor
    sums: Tensor

    def __len__(self) -> int:
        return self.receiver.shape[0]


def complete_edges(
    atoms: AtomsBatch, potentials: Potential | Sequence[Potential], tolerance: float | None = 1e-8
) -> CompleteEdges:
    """Every pair of atoms of each structure with its pair sums, differentiable in positions and cells.

    Raises ValueError naming what is wrong, as ``lattice.pair_sums`` does.
    """
    sums = pair_sums(atoms.positions, atoms.cell, potentials, pbc=atoms.pbc, tolerance=tolerance, batch=atoms.batch)
    assert isinstance(sums, Tensor)
    receiver, sender = complete_pairs(atoms.batch)
    return CompleteEdges(receiver, sender, sums)
