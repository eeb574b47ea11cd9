"""Local edges kept while atoms move little, as molecular dynamics wants them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ase_potnet.graph.atoms_batch import AtomsBatch
from ase_potnet.graph.cutoffs import PairCutoffs
from ase_potnet.graph.neighbours import Edges, local_edges


class NeighbourList:
    """Edges of one batch, searched with a skin and used again until an atom has moved by half the skin.

    cutoff: Å, of all pairs of atoms or by their elements
    skin: Å; with skin 0 every call searches
    """

    def __init__(self, cutoff: float | PairCutoffs, skin: float) -> None:
        self.cutoffs, self.skin = PairCutoffs.of(cutoff), skin
        self._built: tuple[AtomsBatch, Edges] | None = None
        self._shortest = 0.0  # distance when the list was made, Å

    def edges(self, atoms: AtomsBatch) -> Edges:
        """All edges shorter than the cut-off, the same as ``local_edges(atoms, cutoff)`` finds."""
        wide = self.wide_edges(atoms)
        with torch.no_grad():
            vectors = wide.vectors(atoms)
            cutoffs = self.cutoffs.between(atoms.numbers[wide.receiver], atoms.numbers[wide.sender])
            near = torch.nonzero((vectors * vectors).sum(1) < cutoffs * cutoffs)[:, 0]
        return Edges(wide.receiver[near], wide.sender[near], wide.image[near])

    def wide_edges(self, atoms: AtomsBatch) -> Edges:
        """All edges shorter than the cut-off and some longer ones: the same object until another search."""
        if self._built is None or not self._is_close(self._built[0], atoms):
            kept = atoms.moved(atoms.positions.detach().clone(), atoms.cell.detach().clone())
            edges = local_edges(kept, self.cutoffs.wider(self.skin))
            self._built = (kept, edges)
            self._shortest = float(edges.vectors(kept).norm(dim=1).min()) if len(edges) else math.inf
        return self._built[1]

    def may_hold_closer(self, distance: float) -> bool:
        """Whether two atoms may have come closer than ``distance`` since the list was made."""
        return self._shortest < distance + self.skin

    def _is_close(self, old: AtomsBatch, new: AtomsBatch) -> bool:
        """Same structures, every atom closer than half the skin to where it was; cells are compared exactly."""
        same = _equal(old.numbers, new.numbers) and _equal(old.batch, new.batch) and _equal(old.pbc, new.pbc)
        if not (same and old.dtype == new.dtype and _equal(old.cell, new.cell)):
            return False
        moved = new.positions.detach() - old.positions
        return bool((moved * moved).sum(1).max() <= (0.5 * self.skin) ** 2)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.device == b.device and a.shape == b.shape and torch.equal(a, b))
