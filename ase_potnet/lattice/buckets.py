"""Groups of similar structures that are summed together, and their tensors on the device (reduced units)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.plan import Plan, Ragged
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.real_space import FAR_AWAY, RadialTerms
from ase_potnet.lattice.structures import Structures

Integers = NDArray[np.int64]

_OVERHEAD = 2.5e5  # ns of fixed cost of one bucket
_LARGEST_BUCKET = 1 << 19  # plane-wave values held at a time


def split_into_buckets(structures: Structures, plan: Plan) -> list[Integers]:
    """Members of the plan, sorted by size and cut where padding would cost more than another bucket.

    Slabs and wires have quadrature rules of their own: one structure a bucket.
    """
    n_atoms = structures.n_atoms[plan.index]
    if plan.d in (1, 2):
        return [np.array([s]) for s in range(len(n_atoms))]
    n_images, n_waves = plan.images.count, plan.waves.count
    equal = (n_atoms == n_atoms[0]).all()
    order = np.arange(len(n_atoms)) if equal else np.lexsort((n_waves * n_images, n_atoms))
    sizes = np.stack((n_atoms, n_images, n_waves), axis=1)[order].tolist()
    buckets, start = [], 0
    largest, exact = [0, 0, 0], 0.0
    for s, size in enumerate(sizes):
        grown = [max(a, b) for a, b in zip(largest, size, strict=True)]
        count = s - start + 1
        padding = count * _cost(*grown) - exact - _cost(*size)
        if s > start and (padding > _OVERHEAD or count * grown[0] * (2 * grown[2] + grown[0]) > _LARGEST_BUCKET):
            buckets.append(order[start:s])
            start, largest, exact = s, size, _cost(*size)
        else:
            largest, exact = grown, exact + _cost(*size)
    buckets.append(order[start:])
    return buckets


def _cost(n_atoms: int, n_images: int, n_waves: int) -> float:
    """ns for one structure of this padded size."""
    return n_atoms * n_atoms * (0.8 * n_images + 0.6 * n_waves) + 9.0 * n_atoms * n_waves


@dataclass(frozen=True)
class Bucket:
    """One group of structures on the device; n_max atoms each, padded. Built by ``gather_bucket``."""

    plan: Plan
    members: Integers  # (S,) positions in the plan
    n_atoms: Integers  # (S,)
    atoms: Tensor  # (S, n_max) index into the flat atoms; padding repeats the first atom
    positions: Tensor  # (S, n_max, 3) wrapped, reduced units
    lattice: Tensor  # (S, d, 3) reduced basis, reduced units
    dual: Tensor  # (S, d, 3)
    host_scale: NDArray[np.float64]  # (S,) sqrt(eta)

    @property
    def n_max(self) -> int:
        return self.atoms.shape[1]

    @property
    def is_padded(self) -> bool:
        return bool((self.n_atoms != self.n_max).any())

    @cached_property
    def volume(self) -> Tensor:
        """Volume, area or length of the cell. (S,)"""
        basis = self.lattice
        if self.plan.d == 3:
            return torch.linalg.det(basis).abs()
        if self.plan.d == 1:
            return torch.linalg.vector_norm(basis[:, 0], dim=1)
        return torch.linalg.vector_norm(torch.linalg.cross(basis[:, 0], basis[:, 1]), dim=1)

    @cached_property
    def across(self) -> Tensor:
        """Components of the positions along the non-periodic directions. (S, n_max, 3)"""
        return self.positions - self.positions @ self.dual.transpose(1, 2) @ self.lattice

    def terms(self, decomposition: Decomposition) -> RadialTerms:
        """Radial functions of the real-space sum, alpha in reduced units."""
        alphas = tuple(
            self._tensor(primitive.alpha / self.host_scale) if primitive.alpha > 0 else None
            for primitive in decomposition.primitives
        )
        return RadialTerms(decomposition.primitives, self.plan.complete, alphas)

    def prefactors(self, decomposition: Decomposition) -> Tensor:
        """c eta^p of every primitive, from reduced to physical units. (S, n_primitives)"""
        return self._tensor(
            np.stack([p.norm * self.host_scale ** (2 * p.p) for p in decomposition.primitives], axis=1)
        )

    def images(self) -> Tensor:
        """Lattice points of the real-space sum, padded with FAR_AWAY. (S, 3, M)"""
        if self.plan.d == 0:
            return self.positions.new_zeros(len(self.members), 3, 1)
        points, present = _padded(self.plan.images, self.members)
        vectors = self.lattice.transpose(1, 2) @ self._tensor(points)
        return vectors if present is None else vectors + self._tensor(np.where(present, 0.0, FAR_AWAY))[:, None]

    def image_points(self) -> Tensor:
        """The same lattice points as integers (stored as floats). (S, d, M)"""
        return self._tensor(_padded(self.plan.images, self.members)[0])

    def waves(self) -> tuple[Tensor, Tensor | None]:
        """Wave vectors (S, 3, M), and (S, M) ones and zeros where some are padding (None without padding)."""
        points, present = _padded(self.plan.waves, self.members)
        if present is not None:
            points[:, 0] += ~present  # any vector but zero
        vectors = self.dual.transpose(1, 2) @ self._tensor(2 * math.pi * points)
        return vectors, None if present is None else self._tensor(present.astype(np.float64))

    def squared_cutoff(self) -> Tensor:
        """Squared real-space cut-off. (S,)"""
        return self._tensor(self.plan.cutoff[self.members] ** 2)

    def zero_mode(self, decomposition: Decomposition) -> Tensor:
        """k = 0 term per primitive, three periodic directions, for every pair. (S, n_primitives)"""
        rows = []
        for k, primitive in enumerate(decomposition.primitives):
            alpha = primitive.alpha / self.host_scale
            if self.plan.complete[k]:
                rows.append(np.zeros(len(alpha)))
            elif primitive.alpha > 0:
                rows.append(np.asarray(primitive.background(torch.from_numpy(alpha))))
            else:
                rows.append(np.full(len(alpha), primitive.background(0.0)))
        return self._tensor(np.stack(rows, axis=1) + self._logarithms(decomposition)) / self.volume[:, None]

    def _logarithms(self, decomposition: Decomposition) -> NDArray[np.float64]:
        """pi^(d/2) ln(eta) for power laws at the pole of the Epstein zeta function, else 0. (S, n_primitives)"""
        at_pole = [
            primitive.zero_mode_is_logarithmic(self.plan.d) and not whole
            for primitive, whole in zip(decomposition.primitives, self.plan.complete, strict=True)
        ]
        return np.outer(math.pi ** (0.5 * self.plan.d) * 2 * np.log(self.host_scale), at_pole)

    def logarithms(self, decomposition: Decomposition) -> Tensor:
        """The same divided by the cell's volume, on the device. (S, n_primitives)"""
        return self._tensor(self._logarithms(decomposition)) / self.volume[:, None]

    def self_terms(self, decomposition: Decomposition) -> Tensor:
        """The long range at r = 0, contained in the reciprocal sum. (S, n_primitives)"""
        rows = []
        for k, primitive in enumerate(decomposition.primitives):
            alpha = primitive.alpha / self.host_scale
            if self.plan.complete[k]:
                rows.append(np.zeros(len(alpha)))
            elif primitive.alpha > 0:
                rows.append(np.asarray(primitive.self_term(torch.from_numpy(alpha))))
            else:
                rows.append(np.full(len(alpha), primitive.self_term(0.0)))
        return self._tensor(np.stack(rows, axis=1))

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.positions)


def gather_bucket(structures: Structures, plan: Plan, members: Integers) -> Bucket:
    """Wrapped positions and reduced cells of some structures of a plan, differentiable."""
    index = plan.index[members]
    n_atoms = structures.n_atoms[index]
    first = structures.first_atom[index]
    slots = np.arange(n_atoms.max())
    atoms = first[:, None] + np.where(slots < n_atoms[:, None], slots, 0)
    like = structures.positions
    device = like.device
    scale = plan.scale[members]
    scale_tensor = torch.from_numpy(scale).to(like)[:, None, None]
    flat_atoms = torch.from_numpy(atoms).to(device)
    positions = like[flat_atoms] * scale_tensor
    rows = structures.cell[torch.from_numpy(index).to(device)]
    if plan.d < 3:
        rows = torch.take_along_dim(rows, torch.from_numpy(plan.axes[members]).to(device)[:, :, None], 1)
    lattice = torch.from_numpy(plan.transform[members]).to(like) @ rows * scale_tensor
    dual = lattice
    if plan.d == 3:
        dual = torch.linalg.inv(lattice).transpose(1, 2)
    elif plan.d > 0:
        dual = torch.linalg.inv(lattice @ lattice.transpose(1, 2)) @ lattice
    if plan.d > 0:
        with torch.no_grad():
            turns = torch.floor(positions @ dual.transpose(1, 2))
        positions = positions - turns @ lattice
    return Bucket(plan, members, n_atoms, flat_atoms, positions, lattice, dual, scale)


def _padded(ragged: Ragged, members: Integers) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Integer points of some structures (S, d, M), padded with zeros, and which are present (None: all)."""
    count, first = ragged.count[members, None], ragged.first[members, None]
    slots = np.arange(int(count.max(initial=0)))
    present = slots < count
    if present.all():
        return ragged.points[first + slots].transpose(0, 2, 1), None
    points = ragged.points[np.minimum(first + slots, len(ragged.points) - 1)]
    points[~present] = 0.0
    return points.transpose(0, 2, 1), present
