"""A batch of structures with its local and complete edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ase_potnet.graph.atoms_batch import AtomsBatch, Structure, batch_structures
from ase_potnet.graph.complete import CompleteEdges, complete_edges
from ase_potnet.graph.nearest import nearest_edges
from ase_potnet.graph.neighbours import Edges, local_edges
from ase_potnet.lattice import Potential


@dataclass(frozen=True)
class Graph:
    """A batch of crystals as networks see it.

    atoms: the structures
    edges: local edges, or None
    pairs: complete edges, or None
    """

    atoms: AtomsBatch
    edges: Edges | None = None
    pairs: CompleteEdges | None = None


def build_graph(
    structures: AtomsBatch | Structure | Iterable[Structure],
    *,
    cutoff: float | None = None,
    n_nearest: int | None = None,
    potentials: Potential | Sequence[Potential] = (),
    tolerance: float | None = 1e-8,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Graph:
    """Structures as one graph on the device, built in well under a millisecond a structure.

    Args:
        structures: an ``AtomsBatch``, or anything ``batch_structures`` reads (then dtype and device apply).
        cutoff: Å, local edges up to there; None for none.
        n_nearest: local edges to this many nearest neighbours instead (``nearest_edges``); excludes cutoff.
        potentials: of the complete edges; empty for none.
        tolerance: absolute error of the complete edges' sums.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if cutoff is not None and n_nearest is not None:
        raise ValueError(f"cutoff and n_nearest exclude each other, got {cutoff} and {n_nearest}")
    atoms = (
        structures if isinstance(structures, AtomsBatch) else batch_structures(structures, dtype=dtype, device=device)
    )
    edges = None
    if cutoff is not None:
        edges = local_edges(atoms, cutoff)
    elif n_nearest is not None:
        edges = nearest_edges(atoms, n_nearest)
    some = isinstance(potentials, Potential) or len(potentials) > 0
    return Graph(atoms, edges, complete_edges(atoms, potentials, tolerance) if some else None)
