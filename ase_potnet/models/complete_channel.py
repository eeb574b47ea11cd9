"""The complete channel: potentials of per-atom sources, summed over all atoms and images of a batch of structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.graph import AtomsBatch
from ase_potnet.lattice import InversePower, Potential, pair_sums, site_sums

_DENSE = 128  # atoms up to which the pair sums are kept and used again for every layer
_PADDING = 1.5  # largest to smallest structure of a group


def needs_neutral_sources(potential: Potential) -> bool:
    """Whether the sum over a crystal diverges but for a neutralising background: 1/r^n, n <= 3."""
    return isinstance(potential, InversePower) and potential.n <= 3


class CompleteChannel:
    """Sums P_i = Σ_j S_ij q_j over one batch of structures for any number of sources q.

    The pair sums S are computed once, when the channel is made, for structures of at most 128 atoms; larger ones
    use ``lattice.site_sums`` each time. Differentiable in the sources; in positions and cell where these require it.
    For potentials that need a neutralising background the mean of the sources of each structure is taken off, so that
    the background cancels: S_ij less its mean over j does that once for all sources.
    """

    def __init__(self, atoms: AtomsBatch, potentials: Sequence[Potential], tolerance: float | None) -> None:
        self.potentials_, self.tolerance = tuple(potentials), tolerance
        n_atoms = atoms.n_atoms.cpu().numpy()
        small = n_atoms <= _DENSE
        self._groups: list[_Group] = []
        if small.any():
            self._groups = _groups(atoms, self.potentials_, tolerance, n_atoms, np.flatnonzero(small))
        self._large = [atoms.select(np.array([member])) for member in np.flatnonzero(~small)]
        owners = [group.atoms for group in self._groups] + [rows for _, rows in self._large]
        # one group has its atoms in their order
        self._places = None if len(owners) == 1 else torch.argsort(torch.cat(owners))

    def potentials(self, sources: Tensor) -> Tensor:
        """P_i of every channel and potential. (T, C) -> (T, C, K), in the units of the potentials"""
        pieces = [group.products(sources) for group in self._groups]
        pieces += [self._site_sums(part, sources[rows]) for part, rows in self._large]
        return pieces[0] if self._places is None else torch.cat(pieces).index_select(0, self._places)

    def _site_sums(self, part: AtomsBatch, sources: Tensor) -> Tensor:
        """The sums of one large structure. (n, C, K)"""
        columns = []
        for potential in self.potentials_:
            chosen = sources - sources.mean(0) if needs_neutral_sources(potential) else sources
            sums = site_sums(
                chosen, part.positions, part.cell, [potential], pbc=part.pbc, tolerance=self.tolerance, batch=part.batch
            )
            assert isinstance(sums, Tensor)
            columns.append(sums[:, :, 0])
        return torch.stack(columns, dim=2)


class _Group:
    """Structures of similar size, their pair sums padded to one shape.

    sums: (S, K n, n), zero in columns of padding
    index: (S, n) atoms of the batch, padding repeats one of them
    real: (t,) the places among S n that are no padding, or None where there is none
    atoms: (t,) the atoms there
    """

    def __init__(self, sums: Tensor, index: Tensor, real: Tensor | None) -> None:
        self.sums, self.index, self.real = sums, index.reshape(-1), real
        self.atoms = self.index if real is None else self.index[real]

    def products(self, sources: Tensor) -> Tensor:
        """(T, C) -> (t, C, K)"""
        n_structures, n_rows, n = self.sums.shape
        chosen = sources.index_select(0, self.index).view(n_structures, n, -1)
        sums = torch.bmm(self.sums, chosen).view(n_structures, n_rows // n, n, -1)  # (S, K, n, C)
        flat = sums.permute(0, 2, 3, 1).reshape(len(self.index), -1, n_rows // n)
        return flat if self.real is None else flat.index_select(0, self.real)


def _groups(
    atoms: AtomsBatch,
    potentials: tuple[Potential, ...],
    tolerance: float | None,
    n_atoms: NDArray[np.int64],
    members: NDArray[np.int64],
) -> list[_Group]:
    """Small structures with their pair sums, those of potentials that need neutral sources less their mean over j."""
    neutral = torch.tensor([needs_neutral_sources(potential) for potential in potentials])[:, None, None]
    whole = len(members) == len(n_atoms)
    part, rows = (atoms, None) if whole else atoms.select(members)
    sums = pair_sums(part.positions, part.cell, potentials, pbc=part.pbc, tolerance=tolerance, batch=part.batch)
    assert isinstance(sums, Tensor)
    sizes = n_atoms[members]
    first_atom, first_pair = np.cumsum(sizes) - sizes, np.cumsum(sizes**2) - sizes**2
    order = np.argsort(sizes, kind="stable")
    groups, start = [], 0
    for stop in range(1, len(order) + 1):
        if stop < len(order) and sizes[order[stop]] <= max(_PADDING * sizes[order[start]], sizes[order[start]] + 2):
            continue
        some = np.sort(order[start:stop])
        start = stop
        size, n = sizes[some], int(sizes[some].max())
        slot = np.minimum(np.arange(n), size[:, None] - 1)  # (S, n)
        present = np.arange(n) < size[:, None]
        index = torch.from_numpy(first_atom[some][:, None] + slot).to(atoms.device)
        pairs = first_pair[some][:, None, None] + slot[:, :, None] * size[:, None, None] + slot[:, None, :]
        dense = sums[torch.from_numpy(pairs).to(atoms.device)].permute(0, 3, 1, 2)  # (S, K, n, n)
        real = columns = None
        if not present.all():
            columns = torch.from_numpy(present[:, None, None, :]).to(dense)
            real = torch.from_numpy(np.flatnonzero(present)).to(atoms.device)
            dense = dense * columns
        mean = dense.sum(3, keepdim=True) / torch.from_numpy(size[:, None, None, None]).to(dense)
        mean = mean * neutral.to(dense)
        dense = dense - (mean if columns is None else mean * columns)
        groups.append(_Group(dense.reshape(len(some), -1, n), index if rows is None else rows[index], real))
    return groups
