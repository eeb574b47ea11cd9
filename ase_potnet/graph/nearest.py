"""Local edges to a fixed number of nearest neighbours, as the published PotNet has them."""

from __future__ import annotations

import numpy as np
import torch

from ase_potnet.graph.atoms_batch import AtomsBatch
from ase_potnet.graph.neighbours import Edges, local_edges

_SAME_DISTANCE = 1e-4  # Å: closer distances are a tie


def nearest_edges(atoms: AtomsBatch, n_nearest: int = 16, *, ties: str = "cut", first_cutoff: float = 6.0) -> Edges:
    """Edges from the n_nearest closest atoms (images included) to every atom.

    The cut-off grows from first_cutoff until every atom of a periodic structure has enough neighbours; a molecule
    has as many as there are.

    Args:
        n_nearest: neighbours of each atom.
        ties: what to do when neighbours n and n + 1 are equally far, to 1e-4 Å. "cut": exactly n_nearest, as
            published; equal distances are ordered by atomic number, then by where the neighbour lies (z, y, x of
            the edge), so that the choice depends on nothing but the crystal and its orientation. "shell": all
            neighbours of the last distance, so that the choice does not depend on orientation either.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(n_nearest, int) or n_nearest < 1:
        raise ValueError(f"n_nearest must be a positive integer, got {n_nearest!r}")
    if ties not in ("cut", "shell"):
        raise ValueError(f"ties must be 'cut' or 'shell', got {ties!r}")
    cutoff = first_cutoff
    periodic = atoms.pbc.any(dim=1).to(atoms.device)[atoms.batch]
    while True:
        edges = local_edges(atoms, cutoff)
        n_edges = torch.bincount(edges.receiver, minlength=len(atoms.numbers))
        # beyond the last tie there must be nothing unseen, hence the strict inequality in local_edges is enough
        if bool((n_edges[periodic] > n_nearest).all()):
            break
        cutoff *= 1.3
    # a molecule may be larger than the cut-off that its periodic neighbours in the batch needed
    if not bool(periodic.all()):
        extent = float(torch.cdist(atoms.positions.detach(), atoms.positions.detach()).max()) + 1.0
        edges = local_edges(atoms, max(cutoff, extent))
    return _closest(atoms, edges, n_nearest, ties)


def _closest(atoms: AtomsBatch, edges: Edges, n_nearest: int, ties: str) -> Edges:
    vectors = edges.vectors(atoms).detach().cpu().numpy().astype(np.float64)
    distance = np.linalg.norm(vectors, axis=1)
    receiver = edges.receiver.cpu().numpy()
    rank = np.rint(distance / _SAME_DISTANCE)
    x, y, z = np.rint(vectors / _SAME_DISTANCE).T
    species = atoms.numbers.cpu().numpy()[edges.sender.cpu().numpy()]
    order = np.lexsort((x, y, z, species, rank, receiver))
    first = np.searchsorted(receiver, np.arange(len(atoms.numbers)))
    place = np.arange(len(receiver)) - first[receiver]  # of the sorted edges among those of their receiver
    keep = place < n_nearest
    if ties == "shell":
        last = np.maximum.reduceat(np.where(keep, rank[order], -1), first[np.unique(receiver)])
        of_atom = np.zeros(len(atoms.numbers))
        of_atom[np.unique(receiver)] = last
        keep = rank[order] <= of_atom[receiver] + 1
    chosen = torch.from_numpy(order[keep]).to(atoms.device)
    return Edges(edges.receiver[chosen], edges.sender[chosen], edges.image[chosen])
