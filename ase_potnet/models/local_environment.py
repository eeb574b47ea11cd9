"""Neighbourhoods of atoms in padded form, so that sums over neighbours are matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges
from ase_potnet.models.angular import EdgeHarmonics
from ase_potnet.models.layers import is_recorded
from ase_potnet.models.radial import RadialBasis


@dataclass(frozen=True)
class Places:
    """K places for the neighbours of every atom. An empty one holds a neighbour at the cut-off along z.

    senders: (T, K) index of the neighbour (the atom itself in empty places)
    images: (T, K, 3) integer translations of the neighbours, in cell vectors; None if all are zero
    offsets: (T, K, 3) what to add to the vector between atoms: zero, or (0, 0, cut-off) in empty places
    """

    senders: Tensor
    images: Tensor | None
    offsets: Tensor

    def vectors(self, atoms: AtomsBatch) -> Tensor:
        """From atoms to their neighbours, differentiable in positions and cell. (T, K, 3) Å"""
        between = F.embedding(self.senders, atoms.positions) - atoms.positions[:, None]
        if self.images is None:
            return between + self.offsets
        if atoms.n_structures == 1:
            shifts = torch.addmm(self.offsets.view(-1, 3), self.images.view(-1, 3), atoms.cell[0])
            return between + shifts.view_as(between)
        return between + torch.baddbmm(self.offsets, self.images, atoms.cell[atoms.batch])

    @torch.no_grad()
    def sorted(self, atoms: AtomsBatch) -> Places:
        """The same with the nearest neighbours first."""
        vectors = self.vectors(atoms)
        order = (vectors * vectors).sum(2).argsort(dim=1)
        triples = order[..., None].expand(-1, -1, 3)
        images = None if self.images is None else self.images.gather(1, triples)
        return Places(self.senders.gather(1, order), images, self.offsets.gather(1, triples))

    @torch.no_grad()
    def within(self, atoms: AtomsBatch, cutoff: float) -> Places:
        """The same without the last columns in which no neighbour is closer than the cut-off."""
        vectors = self.vectors(atoms)
        columns = torch.nonzero(((vectors * vectors).sum(2) < cutoff * cutoff).any(0))
        n = max(2, int(columns[-1]) + 1 if len(columns) else 0)
        if n == self.senders.shape[1]:
            return self
        images = None if self.images is None else self.images[:, :n].contiguous()
        return Places(self.senders[:, :n].contiguous(), images, self.offsets[:, :n].contiguous())


def padded_places(edges: Edges, atoms: AtomsBatch, cutoff: float) -> Places:
    """Places from edges sorted by receiver; edges may exceed the cut-off."""
    n_atoms = len(atoms.numbers)
    counts = torch.bincount(edges.receiver, minlength=n_atoms)
    n_places = max(2, int(counts.max()))  # one place would be another shape to a compiler
    first = torch.cumsum(counts, 0) - counts
    index = torch.arange(len(edges), device=counts.device) - first[edges.receiver] + edges.receiver * n_places
    senders = torch.arange(n_atoms, device=index.device).repeat_interleave(n_places).index_copy_(0, index, edges.sender)
    images = None
    if atoms.pbc.any():
        images = edges.image.new_zeros(n_atoms * n_places, 3).index_copy_(0, index, edges.image).view(n_atoms, -1, 3)
    offsets = edges.image.new_zeros(n_atoms * n_places, 3)
    offsets[:, 2] = cutoff
    offsets.index_fill_(0, index, 0.0)
    return Places(senders.view(n_atoms, -1), images, offsets.view(n_atoms, -1, 3))


@dataclass(frozen=True)
class Environment:
    """Functions of the places of every atom; radial functions are zero in empty places.

    senders: (T, K) index of the neighbour
    distances: (T, K) Å
    radial: (T, K, n_radial)
    harmonics: (T, K, n_lm) of the direction to the neighbour
    products: (T, K, sum of (2l+1) n_radial[l]) of harmonics and radial functions
    weights: (T, K) of the neighbours, smooth at the cut-off
    bonded: (T,) their sum, from 0 for an atom without neighbours to nearly 1
    """

    senders: Tensor
    distances: Tensor
    radial: Tensor
    harmonics: Tensor
    products: Tensor
    weights: Tensor
    bonded: Tensor

    def at_neighbours(self, features: Tensor) -> Tensor:
        """Features of the neighbours. (T, C) -> (T, K, C)"""
        return F.embedding(self.senders, features)

    def sum_over_neighbours(self, messages: Tensor) -> Tensor:
        """sum_j R_n(r_ij) Y_lm(r_ij) m_ij, rows in the order of ``products``. (T, K, M) -> (T, n_products, M)"""
        return self.products.transpose(1, 2) @ messages

    def less_neighbours(self, values: Tensor) -> Tensor:
        """Values less those of the neighbours, sum_j w_ij (v_i - v_j): the same if all are shifted. (T, C) -> (T, C)"""
        of_neighbours = (self.weights[..., None] * self.at_neighbours(values)).sum(1)
        return self.bonded[:, None] * values - of_neighbours


class LocalEnvironment(nn.Module):
    """Radial functions and spherical harmonics of the vectors to the neighbours."""

    of_harmonics: Tensor
    of_radial: Tensor

    def __init__(self, cutoff: float, n_radial: tuple[int, ...]) -> None:
        super().__init__()
        self.n_radial = n_radial
        self.radial = RadialBasis(cutoff, n_radial[0])
        self.harmonics = EdgeHarmonics(len(n_radial) - 1)
        # the products (l, m, n) as (Y · of_harmonics) (R · of_radial): no small reductions in the derivative
        columns = [(l * l + m, n) for l, n_l in enumerate(n_radial) for m in range(2 * l + 1) for n in range(n_l)]
        lm, n = torch.tensor(columns).T
        self.register_buffer("of_harmonics", F.one_hot(lm).T.double(), persistent=False)
        self.register_buffer("of_radial", F.one_hot(n).T.double(), persistent=False)

    def forward(self, vectors: Tensor, senders: Tensor) -> Environment:
        """(T, K, 3) Å, (T, K)"""
        distances = torch.sqrt((vectors * vectors).sum(2))
        harmonics = self.harmonics(vectors / distances[..., None])
        radial, smooth = self.radial(distances)
        products = self._products(harmonics, radial)
        weights = smooth / (smooth.sum(1, keepdim=True) + 0.3)
        return Environment(senders, distances, radial, harmonics, products, weights, weights.sum(1))

    def _products(self, harmonics: Tensor, radial: Tensor) -> Tensor:
        """(T, K, n_lm), (T, K, n_radial) -> (T, K, n_products)"""
        if not is_recorded():
            return (harmonics @ self.of_harmonics.to(harmonics)) * (radial @ self.of_radial.to(radial))
        parts = []
        for l, n in enumerate(self.n_radial):
            outer = harmonics[..., l * l : (l + 1) ** 2, None] * radial[..., None, :n]
            parts.append(outer.flatten(-2))
        return torch.cat(parts, dim=-1)
