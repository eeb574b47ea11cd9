"""Atoms that nearly coincide, of which no model knows anything."""

from __future__ import annotations

from ase.data import chemical_symbols
from torch import Tensor

from ase_potnet.graph.neighbours import Edges

CLOSEST = 0.3  # Å


def refuse_overlaps(vectors: Tensor, numbers: Tensor, edges: Edges) -> None:
    """Raises ValueError where the vector (E, 3) of an edge is shorter than 0.3 Å, naming its atoms."""
    if len(vectors) == 0:
        return
    distance, edge = (vectors * vectors).sum(1).sqrt().min(0)
    if float(distance) < CLOSEST:
        i, j = int(edges.receiver[edge]), int(edges.sender[edge])
        raise ValueError(
            f"atoms: {chemical_symbols[numbers[i]]} (atom {i}) and {chemical_symbols[numbers[j]]} (atom {j}) are "
            f"{float(distance):.3f} Å apart; wanted at least {CLOSEST} Å"
        )
