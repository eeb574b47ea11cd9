"""Neighbourhoods of atoms in padded form, so that sums over neighbours are matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from ase.data import covalent_radii
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges, PairCutoffs
from ase_potnet.models.angular import EdgeHarmonics
from ase_potnet.models.layers import is_recorded
from ase_potnet.models.radial import RadialBasis, envelope

_WORTH_A_GROUP = 400  # empty places that cost as much as one more group of atoms


@dataclass(frozen=True)
class Places:
    """K places for the neighbours of each of T atoms. An empty one holds a neighbour at the cut-off along z.

    senders: (T, K) index of the neighbour (the atom itself in empty places)
    images: (T, K, 3) integer translations of the neighbours, in cell vectors; None if all are zero
    offsets: (T, K, 3) what to add to the vector between atoms: zero, or (0, 0, cut-off) in empty places
    cutoffs: (T, K) distances from which on a neighbour is none, Å
    receivers: (T,) index of the atoms; None for all atoms of the batch in their order
    """

    senders: Tensor
    images: Tensor | None
    offsets: Tensor
    cutoffs: Tensor
    receivers: Tensor | None = None

    def vectors(self, atoms: AtomsBatch) -> Tensor:
        """From atoms to their neighbours, differentiable in positions and cell. (T, K, 3) Å"""
        between = F.embedding(self.senders, atoms.positions) - of_atoms(atoms.positions, self.receivers)[:, None]
        if self.images is None:
            return between + self.offsets
        if atoms.n_structures == 1:
            shifts = torch.addmm(self.offsets.view(-1, 3), self.images.view(-1, 3), atoms.cell[0])
            return between + shifts.view_as(between)
        return between + torch.baddbmm(self.offsets, self.images, atoms.cell[of_atoms(atoms.batch, self.receivers)])

    @torch.no_grad()
    def sorted(self, atoms: AtomsBatch) -> Places:
        """The same with the nearest neighbours first, in terms of their cut-offs."""
        order = self.vectors(atoms).norm(dim=2).div(self.cutoffs).argsort(dim=1)
        triples = order[..., None].expand(-1, -1, 3)
        images = None if self.images is None else self.images.gather(1, triples)
        return replace(
            self,
            senders=self.senders.gather(1, order),
            images=images,
            offsets=self.offsets.gather(1, triples),
            cutoffs=self.cutoffs.gather(1, order),
        )

    @torch.no_grad()
    def within(self, atoms: AtomsBatch) -> Places:
        """The same without the last columns in which no neighbour is closer than its cut-off."""
        vectors = self.vectors(atoms)
        columns = torch.nonzero(((vectors * vectors).sum(2) < self.cutoffs * self.cutoffs).any(0))
        n = max(2, int(columns[-1]) + 1 if len(columns) else 0)
        if n == self.senders.shape[1]:
            return self
        images = None if self.images is None else self.images[:, :n].contiguous()
        return replace(
            self,
            senders=self.senders[:, :n].contiguous(),
            images=images,
            offsets=self.offsets[:, :n].contiguous(),
            cutoffs=self.cutoffs[:, :n].contiguous(),
        )


def padded_places(edges: Edges, atoms: AtomsBatch, cutoffs: PairCutoffs) -> Places:
    """Places of all atoms from edges sorted by receiver; edges may exceed the cut-offs."""
    counts = torch.bincount(edges.receiver, minlength=len(atoms.numbers))
    return _places(edges, counts, None, atoms, cutoffs)


def grouped_places(edges: Edges, atoms: AtomsBatch, cutoffs: PairCutoffs) -> list[Places]:
    """The same in groups of atoms with about as many neighbours, so that few places are empty."""
    counts = torch.bincount(edges.receiver, minlength=len(atoms.numbers))
    order = torch.argsort(counts, stable=True)
    sizes = _group_sizes(counts[order].cpu().numpy())
    groups = [None] if len(sizes) == 1 else list(order.split(sizes))
    return [_places(edges, counts, group, atoms, cutoffs) for group in groups]


def _group_sizes(counts: NDArray[np.int64]) -> list[int]:
    """Where to cut ascending numbers of neighbours, as long as that saves many empty places."""
    saved = np.arange(len(counts)) * (counts[-1] - np.roll(counts, 1))
    cut = int(saved.argmax())
    if saved[cut] < _WORTH_A_GROUP:
        return [len(counts)]
    return _group_sizes(counts[:cut]) + _group_sizes(counts[cut:])


def _places(edges: Edges, counts: Tensor, receivers: Tensor | None, atoms: AtomsBatch, cutoffs: PairCutoffs) -> Places:
    """Places of some atoms, or all. counts: (T,) edges of every atom"""
    first = torch.cumsum(counts, 0) - counts
    own = torch.arange(len(counts), device=counts.device) if receivers is None else receivers
    counts, first = counts[own], first[own]
    n_places = max(2, int(counts.max()))  # one place would be another shape to a compiler
    place = torch.arange(n_places, device=counts.device)
    empty = place >= counts[:, None]  # (T, K)
    index = (first[:, None] + place).clamp(max=max(len(edges) - 1, 0))
    offsets = edges.image.new_zeros(*index.shape, 3)
    senders, images = own[:, None].expand_as(index).contiguous(), torch.zeros_like(offsets)
    if len(edges) > 0:
        senders = torch.where(empty, senders, edges.sender[index])
        images = edges.image[index].masked_fill(empty[..., None], 0.0)
    ends = cutoffs.between(atoms.numbers[own][:, None], atoms.numbers[senders]).to(offsets)
    offsets[..., 2] = ends * empty
    return Places(senders, images if bool(atoms.pbc.any()) else None, offsets, ends, receivers)


def of_atoms(values: Tensor, receivers: Tensor | None) -> Tensor:
    """Values of some atoms, or of all for None. (T, ...) -> (t, ...)"""
    return values if receivers is None else values.index_select(0, receivers)


@dataclass(frozen=True)
class Environment:
    """Functions of the places of T atoms; radial functions are zero in empty places.

    receivers: (T,) index of the atoms; None for all atoms of the batch in their order
    senders: (T, K) index of the neighbour
    distances: (T, K) Å
    radial: (T, K, n_radial)
    harmonics: (T, K, n_lm) of the direction to the neighbour
    products: (T, K, sum of (2l+1) n_radial[l]) of harmonics and radial functions
    weights: (T, K) of the neighbours, smooth at the cut-off
    bonded: (T,) their sum, from 0 for an atom without neighbours to nearly 1
    condensed: (T,) from 0 for an atom without neighbours to 1 from one near neighbour on
    """

    receivers: Tensor | None
    senders: Tensor
    distances: Tensor
    radial: Tensor
    harmonics: Tensor
    products: Tensor
    weights: Tensor
    bonded: Tensor
    condensed: Tensor

    def at_neighbours(self, features: Tensor) -> Tensor:
        """Features of the neighbours. (T, C) -> (T, K, C)"""
        return F.embedding(self.senders, features)

    def sum_over_neighbours(self, messages: Tensor) -> Tensor:
        """sum_j R_n(r_ij) Y_lm(r_ij) m_ij, rows in the order of ``products``. (T, K, M) -> (T, n_products, M)"""
        return self.products.transpose(1, 2) @ messages

    def less_neighbours(self, values: Tensor) -> Tensor:
        """Values less those of the neighbours, sum_j w_ij (v_i - v_j): the same if all are shifted. (T, C) -> (T, C)"""
        of_neighbours = (self.weights[..., None] * self.at_neighbours(values)).sum(1)
        return self.bonded[:, None] * of_atoms(values, self.receivers) - of_neighbours


class Neighbourhoods:
    """Environments of all atoms of a batch, in groups."""

    def __init__(self, groups: Sequence[Environment]) -> None:
        self._groups = groups
        self._order: Tensor | None = None
        if len(groups) > 1:
            self._order = torch.argsort(torch.cat([group.receivers for group in groups if group.receivers is not None]))
        self.bonded = self.of_atoms(lambda group: group.bonded)
        self.condensed = self.of_atoms(lambda group: group.condensed)

    def of_atoms(self, function: Callable[[Environment], Tensor]) -> Tensor:
        """What a function says of the atoms of each group, (t, ...), for all atoms in their order. (T, ...)"""
        parts = [function(group) for group in self._groups]
        return parts[0] if self._order is None else torch.cat(parts).index_select(0, self._order)


class LocalEnvironment(nn.Module):
    """Radial functions and spherical harmonics of the vectors to the neighbours.

    Those of two atoms end at the cut-off, or at the sum of their covalent radii times ``per_radius`` if that is more.
    """

    reach: Tensor
    of_harmonics: Tensor
    of_radial: Tensor

    def __init__(self, cutoff: float, per_radius: float, n_radial: tuple[int, ...]) -> None:
        super().__init__()
        self.cutoff, self.n_radial = cutoff, n_radial
        self.register_buffer("reach", per_radius * torch.tensor(covalent_radii), persistent=False)
        self.radial = RadialBasis(n_radial[0])
        self.harmonics = EdgeHarmonics(len(n_radial) - 1)
        # the products (l, m, n) as (Y · of_harmonics) (R · of_radial): no small reductions in the derivative
        columns = [(l * l + m, n) for l, n_l in enumerate(n_radial) for m in range(2 * l + 1) for n in range(n_l)]
        lm, n = torch.tensor(columns).T
        self.register_buffer("of_harmonics", F.one_hot(lm).T.double(), persistent=False)
        self.register_buffer("of_radial", F.one_hot(n).T.double(), persistent=False)

    @property
    def cutoffs(self) -> PairCutoffs:
        """Of pairs of elements."""
        return PairCutoffs(self.cutoff, self.reach)

    def forward(self, places: Places, atoms: AtomsBatch) -> Environment:
        """Differentiable in positions and cell."""
        vectors = places.vectors(atoms)
        distances = torch.sqrt((vectors * vectors).sum(2))
        harmonics = self.harmonics(vectors / distances[..., None])
        radial, smooth = self.radial(distances, places.cutoffs)
        products = self._products(harmonics, radial)
        n_neighbours = smooth.sum(1)
        weights = smooth / (n_neighbours + 0.3)[:, None]
        condensed = 1 - envelope(n_neighbours)
        return Environment(
            places.receivers,
            places.senders,
            distances,
            radial,
            harmonics,
            products,
            weights,
            weights.sum(1),
            condensed,
        )

    def _products(self, harmonics: Tensor, radial: Tensor) -> Tensor:
        """(T, K, n_lm), (T, K, n_radial) -> (T, K, n_products)"""
        if not is_recorded():
            return (harmonics @ self.of_harmonics.to(harmonics)) * (radial @ self.of_radial.to(radial))
        parts = []
        for l, n in enumerate(self.n_radial):
            outer = harmonics[..., l * l : (l + 1) ** 2, None] * radial[..., None, :n]
            parts.append(outer.flatten(-2))
        return torch.cat(parts, dim=-1)
