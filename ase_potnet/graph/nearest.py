"""Local edges to a fixed number of nearest neighbours, as the published PotNet has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.graph.atoms_batch import AtomsBatch
from ase_potnet.graph.neighbours import Edges, local_edges

_SAME = 1e-4  # Å: closer distances or coordinates are equal
_GROWTH = 1.3  # of the cut-off for the structures where it was too short


def nearest_edges(atoms: AtomsBatch, n_nearest: int = 16, *, ties: str = "cut", first_cutoff: float = 5.0) -> Edges:
    """Edges from the n_nearest closest atoms (images included) to every atom, sorted by receiver, then by distance.

    The cut-off of a structure grows from first_cutoff until every atom has enough neighbours; an atom of a molecule
    has as many as there are.

    Args:
        n_nearest: neighbours of each atom.
        ties: what to do when neighbours n and n + 1 are equally far, to 1e-4 Å. "cut": exactly n_nearest, as
            published; equal distances are ordered by atomic number, then by where the neighbour lies (z, y, x of
            the edge), so that the choice depends on nothing but the crystal and its orientation. "shell": all
            neighbours of the last distance, so that the choice does not depend on orientation either.
        first_cutoff: Å.

    Raises:
        ValueError: naming the argument.
    """
    if isinstance(n_nearest, bool) or not isinstance(n_nearest, (int, np.integer)) or n_nearest < 1:
        raise ValueError(f"n_nearest must be a positive integer, got {n_nearest!r}")
    if ties not in ("cut", "shell"):
        raise ValueError(f"ties must be 'cut' or 'shell', got {ties!r}")
    if not (np.isfinite(first_cutoff) and first_cutoff > 0):
        raise ValueError(f"first_cutoff must be a positive number of Å, got {first_cutoff!r}")
    edges = _enough_edges(atoms, n_nearest, first_cutoff)
    distance = torch.linalg.vector_norm(edges.vectors(atoms).detach(), dim=1).cpu().numpy().astype(np.float64)
    receiver = edges.receiver.cpu().numpy()
    shell = _ranks(distance, receiver)
    order = np.lexsort((distance, receiver))
    last = np.full(len(atoms.numbers), -1)  # shell of the last neighbour of every atom
    within = order[_places(receiver[order]) < n_nearest]
    np.maximum.at(last, receiver[within], shell[within])
    chosen = order[shell[order] <= last[receiver[order]]]
    edges, shell = _take(edges, chosen), shell[chosen]
    return edges if ties == "shell" else _cut(atoms, edges, shell, n_nearest)


def _enough_edges(atoms: AtomsBatch, n_nearest: int, cutoff: float) -> Edges:
    """Local edges of each structure within a cut-off that holds more than n_nearest neighbours of every atom."""
    n_atoms = atoms.n_atoms.cpu().numpy()
    members, found = np.arange(len(n_atoms)), []
    while len(members):
        part, rows = (atoms, None) if len(members) == len(n_atoms) else atoms.select(members)
        edges = local_edges(part, cutoff)
        owner = part.batch.cpu().numpy()
        n_edges = np.bincount(edges.receiver.cpu().numpy(), minlength=len(owner))
        # an isolated structure has no more than n - 1; any other has ever more as the cut-off grows
        isolated = np.logical_not(part.pbc.numpy()).all(axis=1)
        enough = (n_edges > n_nearest) | (isolated[owner] & (n_edges == n_atoms[members][owner] - 1))
        done = np.ones(len(members), dtype=bool)
        np.logical_and.at(done, owner, enough)
        if not done.all():
            keep = torch.from_numpy(done).to(atoms.device)[part.batch[edges.receiver]]
            edges = Edges(edges.receiver[keep], edges.sender[keep], edges.image[keep])
        if rows is not None:
            edges = Edges(rows[edges.receiver], rows[edges.sender], edges.image)
        found.append(edges)
        members = members[~done]
        cutoff *= _GROWTH
    if len(found) == 1:
        return found[0]
    columns = zip(*((part.receiver, part.sender, part.image) for part in found), strict=True)
    return Edges(*(torch.cat(column) for column in columns))


def _cut(atoms: AtomsBatch, edges: Edges, shell: NDArray[Any], n_nearest: int) -> Edges:
    """The first n_nearest edges of every atom by shell, atomic number and z, y, x of the edge."""
    receiver = edges.receiver.cpu().numpy()
    species = atoms.numbers[edges.sender].cpu().numpy()
    vectors = edges.vectors(atoms).detach().cpu().numpy().astype(np.float64)
    x, y, z = (_ranks(column, receiver) for column in vectors.T)
    order = np.lexsort((x, y, z, species, shell, receiver))
    return _take(edges, order[_places(receiver[order]) < n_nearest])


def _ranks(values: NDArray[np.float64], receiver: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending numbers for the values of each receiver; values that differ by rounding get the same. (E,)

    A new number begins where the next larger value is further than 1e-4 Å. Unlike rounding to a grid, this cannot
    part values that happen to lie on both sides of a grid line.
    """
    order = np.lexsort((values, receiver))
    sorted_values, sorted_receiver = values[order], receiver[order]
    step = (np.diff(sorted_values) > _SAME) | (np.diff(sorted_receiver) > 0)
    ranks = np.zeros(len(values), dtype=np.int64)
    ranks[order[1:]] = np.cumsum(step)
    return ranks


def _places(receiver: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of every edge among those of its receiver; receivers ascend. (E,)"""
    first = np.searchsorted(receiver, receiver)
    return np.arange(len(receiver)) - first


def _take(edges: Edges, rows: NDArray[Any]) -> Edges:
    index = torch.from_numpy(rows).to(edges.receiver.device)
    return Edges(edges.receiver[index], edges.sender[index], edges.image[index])
