"""Neighbourhoods of atoms in padded form, so that sums over neighbours are matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ase_potnet.graph import AtomsBatch, Edges
from ase_potnet.models.angular import spherical_harmonics
from ase_potnet.models.radial import RadialBasis, envelope


@dataclass(frozen=True)
class Environment:
    """K places for the neighbours of every atom; empty ones have zero radial functions.

    senders: (T, K) index of the neighbour (the atom itself in empty places)
    distances: (T, K) Å (the cut-off in empty places)
    radial: (T, K, n_radial)
    harmonics: (T, K, n_lm) of the direction to the neighbour
    products: (T, sum of (2l+1) n_radial[l], K) of harmonics and radial functions
    n_radial: radial functions of each degree
    bonded: (T,) from 0 for an atom without neighbours to nearly 1
    """

    senders: Tensor
    distances: Tensor
    radial: Tensor
    harmonics: Tensor
    products: Tensor
    n_radial: tuple[int, ...]
    bonded: Tensor

    def along_edges(self, features: Tensor, l: int) -> Tensor:
        """Features of degree l of the neighbours, contracted with the direction. (T, C) or (T, 2l+1, C) -> (T, K, C)"""
        n_atoms, n_places = self.senders.shape
        at_neighbours = F.embedding(self.senders, features.reshape(n_atoms, -1))
        if l == 0:
            return at_neighbours
        at_neighbours = at_neighbours.view(n_atoms, n_places, 2 * l + 1, -1)
        harmonics = self.harmonics[:, :, l * l : (l + 1) ** 2]
        return (harmonics[..., None] * at_neighbours).sum(2) * (2 * l + 1) ** -0.5

    def sum_over_neighbours(self, messages: Tensor) -> list[Tensor]:
        """sum_j R_n(r_ij) Y_lm(r_ij) m_ij for each degree l. (T, K, M) -> (T, 2l+1, n_radial[l] · M)"""
        sums = self.products @ (0.1 * messages)
        sizes = [(2 * l + 1) * n for l, n in enumerate(self.n_radial)]
        return [part.reshape(len(sums), 2 * l + 1, -1) for l, part in enumerate(sums.split(sizes, 1))]


def environment(atoms: AtomsBatch, edges: Edges, basis: RadialBasis, n_radial: tuple[int, ...]) -> Environment:
    """Padded neighbourhoods from edges sorted by receiver. Differentiable in positions and cell."""
    n_atoms, n_edges = len(atoms.numbers), len(edges)
    counts = torch.bincount(edges.receiver, minlength=n_atoms)
    n_places = max(1, int(counts.max()))
    first = torch.cumsum(counts, 0) - counts
    slot = torch.arange(n_edges, device=atoms.device) - first[edges.receiver] + edges.receiver * n_places
    index = torch.full((n_atoms * n_places,), n_edges, device=atoms.device)
    index[slot] = torch.arange(n_edges, device=atoms.device)
    # the empty place: a neighbour at the cut-off along z
    nowhere = atoms.positions.new_tensor([[0.0, 0.0, basis.cutoff]])
    vectors = F.embedding(index, torch.cat((edges.vectors(atoms), nowhere)))  # (T K, 3)
    senders = torch.cat((edges.sender, edges.sender.new_zeros(1)))[index].view(n_atoms, n_places)
    distances = torch.sqrt((vectors * vectors).sum(1))
    harmonics = spherical_harmonics(len(n_radial) - 1, vectors / distances[:, None]).view(n_atoms, n_places, -1)
    radial = basis(distances).view(n_atoms, n_places, -1)
    parts = [
        (harmonics[:, :, l * l : (l + 1) ** 2, None] * radial[:, :, None, :n]).flatten(2)
        for l, n in enumerate(n_radial)
    ]
    products = torch.cat(parts, dim=2).transpose(1, 2)
    distances = distances.view(n_atoms, n_places)
    n_neighbours = envelope(distances / basis.cutoff).sum(1)
    bonded = n_neighbours / (n_neighbours + 0.3)
    return Environment(senders, distances, radial, harmonics, products, n_radial, bonded)
