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
    the background cancels.
    """

    def __init__(self, atoms: AtomsBatch, potentials: Sequence[Potential], tolerance: float) -> None:
        self.atoms, self.potentials_, self.tolerance = atoms, tuple(potentials), tolerance
        self._neutral = [needs_neutral_sources(potential) for potential in self.potentials_]
        n_atoms = atoms.n_atoms.cpu().numpy()
        self._n_atoms = n_atoms
        small = n_atoms <= _DENSE
        self._groups: list[_Group] = []
        if small.any():
            self._groups = _groups(atoms, self.potentials_, tolerance, n_atoms, np.flatnonzero(small))
        self._large = [atoms.select(np.array([member])) for member in np.flatnonzero(~small)]

    def potentials(self, sources: Tensor) -> Tensor:
        """P_i of every channel and potential. (T, C) -> (T, C, K), in the units of the potentials"""
        centred = sources - self._mean(sources)
        total = sources.new_zeros(len(sources), len(self.potentials_), sources.shape[1])
        pieces, owners = [], []
        for group in self._groups:
            pieces.append(group.products(sources, centred, self._neutral))
            owners.append(group.atoms)
        for part, rows in self._large:
            pieces.append(self._site_sums(part, sources[rows], centred[rows]))
            owners.append(rows)
        return total.index_copy(0, torch.cat(owners), torch.cat(pieces)).transpose(1, 2)

    def _mean(self, sources: Tensor) -> Tensor:
        """Mean of the sources of the structure of each atom. (T, C)"""
        total = sources.new_zeros(self.atoms.n_structures, sources.shape[1])
        total = total.index_add(0, self.atoms.batch, sources)
        counts = torch.from_numpy(self._n_atoms).to(sources)
        return (total / counts[:, None])[self.atoms.batch]

    def _site_sums(self, part: AtomsBatch, sources: Tensor, centred: Tensor) -> Tensor:
        """The sums of one large structure. (n, K, C)"""
        columns = []
        for potential, neutral in zip(self.potentials_, self._neutral, strict=True):
            chosen = centred if neutral else sources
            sums = site_sums(
                chosen, part.positions, part.cell, [potential], pbc=part.pbc, tolerance=self.tolerance, batch=part.batch
            )
            assert isinstance(sums, Tensor)
            columns.append(sums[:, :, 0])
        return torch.stack(columns, dim=1)


class _Group:
    """Structures of similar size, their pair sums padded to one shape.

    sums: (K, S, n, n), zero at padding
    index: (S, n) atoms of the batch, padding repeats one of them
    real: (S n,) places that are no padding, or None where there is none; atoms: (t,) the atoms there
    """

    def __init__(self, sums: Tensor, index: Tensor, real: Tensor | None) -> None:
        self.sums, self.index, self.real = sums, index, real
        flat = index.reshape(-1)
        self.atoms = flat if real is None else flat[real]

    def products(self, sources: Tensor, centred: Tensor, neutral: list[bool]) -> Tensor:
        """(T, C) -> (t, K, C)"""
        options = {flag: (centred if flag else sources)[self.index] for flag in set(neutral)}
        parts = [torch.bmm(sums, options[flag]) for sums, flag in zip(self.sums, neutral, strict=True)]
        stacked = torch.stack(parts, dim=2).flatten(0, 1)  # (S n, K, C)
        return stacked if self.real is None else stacked[self.real]


def _groups(
    atoms: AtomsBatch,
    potentials: tuple[Potential, ...],
    tolerance: float,
    n_atoms: NDArray[np.int64],
    members: NDArray[np.int64],
) -> list[_Group]:
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
        dense = sums[torch.from_numpy(pairs).to(atoms.device)].permute(3, 0, 1, 2)  # (K, S, n, n)
        real = None
        if not present.all():
            keep = torch.from_numpy(present[:, :, None] & present[:, None, :]).to(atoms.device)
            dense = dense * keep
            real = torch.from_numpy(np.flatnonzero(present)).to(atoms.device)
        groups.append(_Group(dense.contiguous(), index if rows is None else rows[index], real))
    return groups
