"""Groups of similar structures that are summed together, and their tensors on the device (reduced units)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.plan import Plan, Ragged, constants_of
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.real_space import FAR_AWAY, RadialTerms
from ase_potnet.lattice.structures import Structures

Integers = NDArray[np.int64]

_OVERHEAD = 5e5  # ns of fixed cost of one bucket
_LARGEST_BUCKET = 1 << 20  # plane-wave values held at a time
_SMALL_BATCH = 5e6  # ns of work that cannot need much memory


def split_into_buckets(structures: Structures, plan: Plan) -> list[Integers]:
    """Members of the plan, sorted by size and cut where padding would cost more than another bucket.

    Slabs and wires have quadrature rules of their own: one structure a bucket.
    """
    n_atoms = structures.n_atoms[plan.index]
    if plan.d in (1, 2) or len(n_atoms) == 1:
        return [np.array([s]) for s in range(len(n_atoms))]
    n_images, n_waves = plan.images.count, plan.waves.count
    together = len(n_atoms) * _cost(int(n_atoms.max()), int(n_images.max()), int(n_waves.max()))
    apart = float(_cost(n_atoms, n_images, n_waves).sum())
    if together - apart < _OVERHEAD and together < _SMALL_BATCH:
        return [np.arange(len(n_atoms))]
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


def _cost(n_atoms: Any, n_images: Any, n_waves: Any) -> Any:
    """ns for one structure of this padded size; numbers or arrays."""
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
            return (basis[:, 0] * torch.linalg.cross(basis[:, 1], basis[:, 2])).sum(1).abs()
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
        constants = constants_of(decomposition)
        return self._tensor((constants.norm * self.host_scale ** (2 * constants.p)).T)

    def images(self) -> Tensor:
        """Lattice points of the real-space sum, padded with FAR_AWAY. (S, 3, M)"""
        if self.plan.d == 0:
            return self.positions.new_zeros(len(self.members), 3, 1)
        points, present = _padded(self.plan.images, self.members)
        vectors = torch.bmm(self.lattice.transpose(1, 2), self._tensor(points))
        return vectors if present is None else vectors + self._tensor(np.where(present, 0.0, FAR_AWAY))[:, None]

    def waves(self) -> tuple[Tensor, Tensor | None]:
        """Wave vectors (S, 3, M), and (S, M) ones and zeros where some are padding (None without padding)."""
        points, present = _padded(self.plan.waves, self.members)
        vectors = torch.bmm(self.dual.transpose(1, 2), self._tensor(np.multiply(points, 2 * math.pi, order="C")))
        return vectors, None if present is None else self._tensor(present.astype(np.float64))

    def squared_cutoff(self) -> Tensor:
        """Squared real-space cut-off. (S,)"""
        return self._tensor(self.plan.cutoff[self.members] ** 2)

    def zero_mode(self, decomposition: Decomposition) -> Tensor:
        """k = 0 term per primitive, three periodic directions, for every pair. (S, n_primitives)"""
        return self._tensor(zero_modes(self.plan, decomposition, self.host_scale)) / self.volume[:, None]

    def logarithms(self, decomposition: Decomposition) -> Tensor:
        """Its part that depends on the unit of length. (S, n_primitives)"""
        return self._tensor(_logarithms(self.plan, decomposition, self.host_scale)) / self.volume[:, None]

    def self_terms(self, decomposition: Decomposition) -> Tensor:
        """The long range at r = 0, contained in the reciprocal sum. (S, n_primitives)"""
        return self._tensor(self_terms(self.plan, decomposition, self.host_scale))

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.positions)


def zero_modes(plan: Plan, decomposition: Decomposition, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """k = 0 terms times the volume, three periodic directions, reduced units. scale (S,) -> (S, n_primitives)"""
    constant = _logarithms(plan, decomposition, scale)
    for k in plan.split:
        primitive = decomposition.primitives[k]
        constant[:, k] += _with_alpha(primitive.background, primitive.alpha, scale)
    return constant


def self_terms(plan: Plan, decomposition: Decomposition, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The long range at r = 0, reduced units. scale (S,) -> (S, n_primitives)"""
    values = np.zeros((len(scale), len(decomposition.primitives)))
    for k in plan.split:
        primitive = decomposition.primitives[k]
        values[:, k] = _with_alpha(primitive.self_term, primitive.alpha, scale)
    return values


def _logarithms(plan: Plan, decomposition: Decomposition, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """pi^(d/2) ln(eta) for power laws at the pole of the Epstein zeta function, else 0. (S, n_primitives)"""
    values = np.zeros((len(scale), len(decomposition.primitives)))
    for k in plan.split:
        if decomposition.primitives[k].zero_mode_is_logarithmic(plan.d):
            values[:, k] = math.pi ** (0.5 * plan.d) * 2 * np.log(scale)
    return values


def _with_alpha(function: Callable[[Any], Any], alpha: float, scale: NDArray[np.float64]) -> Any:
    """A function of alpha in reduced units; one number for a power law, which has none."""
    return np.asarray(function(torch.from_numpy(alpha / scale))) if alpha > 0 else function(0.0)


def gather_bucket(structures: Structures, plan: Plan, members: Integers) -> Bucket:
    """Wrapped positions and reduced cells of some structures of a plan, differentiable."""
    index = plan.index[members]
    n_atoms = structures.n_atoms[index]
    slots = np.arange(n_atoms.max())
    atoms = structures.first_atom[index][:, None] + np.where(slots < n_atoms[:, None], slots, 0)
    like = structures.positions
    scale = plan.scale[members]
    positions = _rows(like, atoms.reshape(-1)).view(*atoms.shape, 3) * torch.from_numpy(scale).to(like)[:, None, None]
    cell = _rows(structures.cell, index)
    if plan.d < 3:
        cell = torch.take_along_dim(cell, torch.from_numpy(plan.axes[members]).to(like.device)[:, :, None], 1)
    lattice = torch.bmm(torch.from_numpy(plan.transform[members] * scale[:, None, None]).to(like), cell)
    dual = lattice
    if plan.d == 3:
        across = torch.linalg.cross(lattice.roll(-1, 1), lattice.roll(-2, 1))
        dual = across / (lattice[:, :1] * across[:, :1]).sum(2, keepdim=True)
    elif plan.d > 0:
        dual = torch.linalg.inv(lattice @ lattice.transpose(1, 2)) @ lattice
    if plan.d > 0:
        turns = torch.round(torch.bmm(positions.detach(), dual.detach().transpose(1, 2)))
        positions = torch.baddbmm(positions, turns, lattice, alpha=-1)
    return Bucket(plan, members, n_atoms, torch.from_numpy(atoms).to(like.device), positions, lattice, dual, scale)


def _rows(values: Tensor, index: Integers) -> Tensor:
    """values[index]: a view where the rows are consecutive."""
    first, n_rows = int(index[0]), len(index)
    if n_rows == int(index[-1]) - first + 1 and bool((index[1:] > index[:-1]).all()):
        return values if n_rows == len(values) else values[first : first + n_rows]
    return values.index_select(0, torch.from_numpy(index).to(values.device))


def _padded(ragged: Ragged, members: Integers) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Integer points of some structures (S, d, M), and which are no padding (None: all); padding repeats others."""
    count, first = ragged.count[members, None], ragged.first[members, None]
    slots = np.arange(int(count.max(initial=0)))
    present = slots < count
    points = ragged.points.take(first + slots, axis=0, mode="clip").transpose(0, 2, 1)
    return points, None if present.all() else present
