"""Local edges: all pairs of atoms, images included, within a cut-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.graph.atoms_batch import AtomsBatch
from ase_potnet.graph.cutoffs import PairCutoffs
from ase_potnet.lattice.plan import Ragged, lattice_images
from ase_potnet.lattice.real_space import floor_divide, nonzero_flat
from ase_potnet.lattice.reduction import dual_basis, group_rows, reduce_basis

_BLOCK = 1 << 18  # distances looked at together
_LARGE = 1 << 19  # distances of one structure above which a cell list is faster, on the host


@dataclass(frozen=True)
class Edges:
    """Directed edges j -> i, sorted by the receiver i, then by the sender j.

    receiver: (E,) atom i
    sender: (E,) atom j
    image: (E, 3) integer translation of the sender, in cell vectors, dtype of the positions
    """

    receiver: Tensor
    sender: Tensor
    image: Tensor

    def __len__(self) -> int:
        return self.receiver.shape[0]

    def vectors(self, atoms: AtomsBatch) -> Tensor:
        """r_j + image · cell - r_i, differentiable in positions and cell. (E, 3) Å"""
        vectors = atoms.positions[self.sender] - atoms.positions[self.receiver]
        if not atoms.pbc.any():
            return vectors
        if atoms.n_structures == 1:
            return torch.addmm(vectors, self.image, atoms.cell[0])
        structure = atoms.batch[self.receiver]
        for axis in range(3):  # a product of matrices for every edge would take longer than all the rest
            vectors = torch.addcmul(vectors, self.image[:, axis, None], atoms.cell[:, axis].index_select(0, structure))
        return vectors


def local_edges(atoms: AtomsBatch, cutoff: float | PairCutoffs) -> Edges:
    """All edges with 0 < |r_j + n - r_i| < cutoff, every structure in its own cell and periodicity.

    cutoff: Å, of all pairs of atoms or by their elements

    The search runs on the device of the atoms; large structures on the host use vesin's cell lists.
    Atoms may lie outside the cell, which may be skewed or left-handed.

    Raises:
        ValueError: naming cutoff (not a positive number).
    """
    cutoffs = PairCutoffs.of(cutoff)
    atoms = atoms.moved(atoms.positions.detach(), atoms.cell.detach())
    n_atoms = atoms.n_atoms.cpu().numpy()
    first = np.cumsum(n_atoms) - n_atoms
    longest = cutoffs.longest(atoms)
    lattices = _reduced_lattices(atoms, longest)
    n_distances = n_atoms**2 * lattices.images.count
    large = (n_distances > _LARGE) & (not atoms.positions.is_cuda)
    pieces, owners = [], []
    for members in _blocks(n_atoms, lattices.images.count, np.flatnonzero(~large)):
        pieces.append(_search(atoms, lattices, members, n_atoms, first, cutoffs))
        owners.append(members)
    for member in np.flatnonzero(large):
        rows = slice(first[member], first[member] + n_atoms[member])
        pieces.append(_cell_list(atoms, int(member), rows, cutoffs, float(longest[member])))
        owners.append(np.array([member]))
    receiver, sender, image = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    order = np.concatenate(owners)
    if (np.diff(order) < 0).any():
        by_receiver = torch.argsort(receiver, stable=True)
        receiver, sender, image = receiver[by_receiver], sender[by_receiver], image[by_receiver]
    return Edges(receiver, sender, image)


@dataclass(frozen=True)
class _Lattices:
    """Reduced cells, zero rows in non-periodic directions, and the lattice points to look at (host)."""

    basis: NDArray[np.float64]  # (B, 3, 3)
    dual: NDArray[np.float64]  # (B, 3, 3)
    transform: NDArray[np.float64]  # (B, 3, 3) basis = transform @ cell
    images: Ragged  # points (n, 3)


def _reduced_lattices(atoms: AtomsBatch, cutoffs: NDArray[np.float64]) -> _Lattices:
    cell = atoms.cell.cpu().numpy().astype(np.float64)
    pbc = atoms.pbc.numpy()
    n_structures = len(cell)
    basis, dual, transform = (np.zeros((n_structures, 3, 3)) for _ in range(3))
    count, owners, points = np.ones(n_structures, dtype=np.int64), [], []
    for flags, members in group_rows(pbc).items():
        some, axes = np.array(members), np.flatnonzero(flags)
        if len(axes) == 0:
            owners.append(some)
            points.append(np.zeros((len(some), 3)))
            continue
        rows = cell[some[:, None], axes]
        reduced, steps = reduce_basis(rows)
        inverse = dual_basis(reduced)
        into = np.ix_(some, axes)
        basis[into], dual[into] = reduced, inverse
        transform[some[:, None, None], axes[:, None], axes] = steps
        images = lattice_images(reduced, inverse, cutoffs[some])
        count[some] = images.count
        full = np.zeros((len(images.points), 3))
        full[:, axes] = images.points
        owners.append(np.repeat(some, images.count))
        points.append(full)
    order = np.argsort(np.concatenate(owners), kind="stable")
    return _Lattices(basis, dual, transform, Ragged(np.concatenate(points)[order], count))


def _blocks(
    n_atoms: NDArray[np.int64], n_images: NDArray[np.int64], members: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Structures of similar size that are searched together."""
    members = members[np.lexsort((n_images[members], n_atoms[members]))]
    blocks, start = [], 0
    for stop in range(1, len(members) + 1):
        if stop < len(members):
            some = members[start : stop + 1]
            padded = int(n_atoms[some[-1]]) ** 2 * int(n_images[some].max()) * len(some)
            exact = int((n_atoms[some] ** 2 * n_images[some]).sum())
            if padded <= _BLOCK and padded - exact < _BLOCK // 4:
                continue
        blocks.append(np.sort(members[start:stop]))
        start = stop
    return blocks


def _search(
    atoms: AtomsBatch,
    lattices: _Lattices,
    members: NDArray[np.int64],
    n_atoms: NDArray[np.int64],
    first: NDArray[np.int64],
    cutoffs: PairCutoffs,
) -> tuple[Tensor, Tensor, Tensor]:
    """Receiver, sender and image of the edges of some structures, all pairs times all images at once."""
    device = atoms.device

    def on_device(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device)

    sizes = n_atoms[members]
    n, n_some = int(sizes.max()), len(members)
    slots = np.arange(n)
    index = on_device(first[members][:, None] + np.minimum(slots, sizes[:, None] - 1))  # (s, n)
    positions = atoms.positions[index].to(torch.float64)  # (s, n, 3)
    basis, dual = on_device(lattices.basis[members]), on_device(lattices.dual[members])
    vectors = (positions[:, None, :] - positions[:, :, None]).view(n_some, n * n, 3)  # r_j - r_i
    turns = torch.round(vectors @ dual.transpose(1, 2))
    vectors = torch.baddbmm(vectors, turns, basis, alpha=-1)
    count = lattices.images.count[members]
    n_images = int(count.max())
    places = lattices.images.first[members][:, None] + np.arange(n_images)
    points = on_device(lattices.images.points.take(places, axis=0, mode="clip"))  # (s, M, 3)
    images = points @ basis
    # |v + m|^2 = |v|^2 + |m|^2 + 2 v.m; a distance near the cut-off is exact to 1e-14
    distance2 = torch.baddbmm((images * images).sum(2)[:, None], vectors, images.transpose(1, 2), alpha=2)
    distance2 += (vectors * vectors).sum(2)[:, :, None]
    distance2 = distance2.view(n_some, n, n, n_images)
    distance2[:, range(n), range(n), 0] = torch.inf  # the atom itself; its images follow
    if (count < n_images).any():
        absent = on_device(np.arange(n_images) >= count[:, None])
        distance2.masked_fill_(absent[:, None, None], torch.inf)
    if (sizes < n).any():
        absent = on_device(slots >= sizes[:, None])
        distance2.masked_fill_((absent[:, :, None] | absent[:, None])[..., None], torch.inf)
    if cutoffs.all_equal:
        near = distance2 < cutoffs.shortest**2
    else:
        numbers = atoms.numbers[index]
        near = distance2 < cutoffs.between(numbers[:, :, None], numbers[:, None, :])[..., None].square()
    flat = nonzero_flat(near)
    pair = floor_divide(flat, n_images)
    structure = floor_divide(pair, n * n)
    transform = on_device(lattices.transform[members])  # from the reduced cell back to the given one
    points, turns = (points @ transform).view(-1, 3), (turns @ transform).view(-1, 3)
    image = points.index_select(0, flat - (pair - structure) * n_images) - turns.index_select(0, pair)
    row = floor_divide(pair, n)  # structure and i
    index = index.view(-1)
    sender = index.index_select(0, structure * n + pair - row * n)
    return index.index_select(0, row), sender, image.to(atoms.dtype)


def _cell_list(
    atoms: AtomsBatch, member: int, rows: slice, cutoffs: PairCutoffs, longest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Receiver, sender and image of the edges of one large structure, by vesin."""
    import vesin

    pbc = atoms.pbc[member].numpy()
    cell = atoms.cell[member].numpy().astype(np.float64).copy()
    cell[~pbc] = 0.0
    positions = atoms.positions[rows].numpy().astype(np.float64)
    i, j, image, distance = vesin.NeighborList(cutoff=longest, full_list=True).compute(
        points=positions, box=cell, periodic=pbc.tolist(), quantities="ijSd"
    )
    order = np.lexsort((j, i))
    if not cutoffs.all_equal:
        numbers = atoms.numbers[rows].numpy()
        limits = cutoffs.between(*(torch.from_numpy(numbers[some]) for some in (i, j))).numpy()
        order = order[distance[order] < limits[order]]
    i, j, image = i[order], j[order], image[order]
    receiver = torch.from_numpy(i.astype(np.int64)) + rows.start
    sender = torch.from_numpy(j.astype(np.int64)) + rows.start
    return receiver, sender, torch.from_numpy(image.astype(np.float64)).to(atoms.dtype)
