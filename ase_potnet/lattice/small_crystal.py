"""Pair sums of one small crystal in few operations: for a single structure these, not arithmetic, take the time.

Whatever depends on the cell alone (lattice points, wave vectors, weights) is made once for a plan, which is kept as
long as the cell stays the same. All images of all pairs are summed, also those that lie beyond the cut-off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import gather_bucket
from ase_potnet.lattice.pair_vectors import distinct_pairs
from ase_potnet.lattice.plan import Plan, constants_of
from ase_potnet.lattice.potentials.base import Decomposition, Primitive
from ase_potnet.lattice.primitive_sums import primitive_pair_sums, slots_of_pairs
from ase_potnet.lattice.reduction import dual_basis
from ase_potnet.lattice.special import Radial
from ase_potnet.lattice.structures import Structures

_LARGEST = 1 << 15  # images of pairs up to which nothing is sorted out


def is_small_crystal(structures: Structures, plans: tuple[Plan, ...]) -> bool:
    """Whether the batch is one crystal whose pairs have few images."""
    if structures.n_structures != 1 or plans[0].d != 3:
        return False
    n, n_images = int(structures.n_atoms[0]), len(plans[0].images.points)
    return (n * (n - 1) // 2 + 1) * n_images <= _LARGEST


def small_crystal_sums(structures: Structures, plan: Plan, decomposition: Decomposition) -> Tensor:
    """Sums of the primitives, physical units, differentiable to every order. (N, N, n_primitives)

    Raises ValueError where two atoms coincide.
    """
    like = structures.positions
    crystal = _crystal(plan, decomposition, structures.host_cell.tobytes(), len(like), like.dtype, like.device)
    sums: Tensor = _PairSums.apply(structures.positions, structures.cell[0], structures, crystal)
    return sums


@dataclass(frozen=True)
class _Crystal:
    """What does not depend on the positions; reduced units.

    to_lattice: (3, 3) reduced lattice = to_lattice · cell; lattice, dual (3, 3); volume; scale
    points (M, 3) integer, images (M, 3); indices (W, 3) integer times 2 pi, waves (3, W)
    first, second: (P,) atoms of the pairs, that of an atom with itself first; slots (N N,) pair of each i, j
    """

    plan: Plan
    decomposition: Decomposition
    scale: float
    volume: float
    to_lattice: Tensor
    lattice: Tensor
    dual: Tensor
    points: Tensor
    images: Tensor
    indices: Tensor
    waves: Tensor
    first: Tensor
    second: Tensor
    slots: Tensor

    @cached_property
    def prefactors(self) -> list[float]:
        """From reduced to physical units, one for each primitive."""
        constants = constants_of(self.decomposition)
        factors: list[float] = (constants.norm * self.scale ** (2 * constants.p))[:, 0].tolist()
        return factors

    @cached_property
    def alphas(self) -> list[float]:
        return [primitive.alpha / self.scale for primitive in self.decomposition.primitives]

    @cached_property
    def weights(self) -> Tensor:
        """2 H(k)/V of the split primitives for cosines and sines, physical units. (n_split, 2 W)"""
        weights = torch.stack([self._transform(k, self._k2) for k in self.plan.split])
        return torch.cat((weights, weights), dim=1)

    @cached_property
    def weight_slopes(self) -> Tensor:
        """Derivatives of the weights by k^2. (n_split, W)"""
        with torch.enable_grad():
            k2 = self._k2.requires_grad_()
            return torch.stack([torch.autograd.grad(self._transform(k, k2).sum(), k2)[0] for k in self.plan.split])

    @property
    def _k2(self) -> Tensor:
        return (self.waves * self.waves).sum(0)

    def _transform(self, k: int, k2: Tensor) -> Tensor:
        primitive: Primitive = self.decomposition.primitives[k]
        return primitive.fourier(k2, self.alphas[k]) * (2 * self.prefactors[k] / self.volume)

    @cached_property
    def zero_modes(self) -> Tensor:
        """k = 0 terms, physical units. (n_primitives,)"""
        values = [0.0] * len(self.prefactors)
        for k in self.plan.split:
            primitive = self.decomposition.primitives[k]
            value = float(primitive.background(_tensor_or_zero(self.alphas[k])))
            if primitive.zero_mode_is_logarithmic(3):
                value += math.pi**1.5 * 2 * math.log(self.scale)
            values[k] = value * self.prefactors[k] / self.volume
        return self.lattice.new_tensor(values)

    @cached_property
    def constant(self) -> Tensor:
        """k = 0 terms, and on the diagonal minus the long range at r = 0. (N, N, n_primitives)"""
        n = math.isqrt(len(self.slots))
        own = torch.zeros_like(self.zero_modes)
        for k in self.plan.split:
            own[k] = self.decomposition.primitives[k].self_term(_tensor_or_zero(self.alphas[k])) * self.prefactors[k]
        constant = self.zero_modes.expand(n, n, -1).clone()
        constant.diagonal().sub_(own[:, None])
        return constant


def _tensor_or_zero(alpha: float) -> Any:
    return torch.tensor(alpha, dtype=torch.float64) if alpha > 0 else 0.0


@lru_cache(maxsize=8)
def _crystal(
    plan: Plan, decomposition: Decomposition, host_cell: bytes, n_atoms: int, dtype: torch.dtype, device: torch.device
) -> _Crystal:
    cell = np.frombuffer(host_cell, dtype=np.float64).reshape(3, 3)
    scale = float(plan.scale[0])
    to_lattice = plan.transform[0] * scale
    lattice = to_lattice @ cell
    dual = dual_basis(lattice[None])[0]
    indices = 2 * math.pi * plan.waves.points
    first, second = (torch.cat((pair.new_zeros(1), pair)) for pair in distinct_pairs(n_atoms, device))

    def on_device(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(device=device, dtype=dtype)

    return _Crystal(
        plan=plan,
        decomposition=decomposition,
        scale=scale,
        volume=float(plan.volume[0]),
        to_lattice=on_device(to_lattice),
        lattice=on_device(lattice),
        dual=on_device(dual),
        points=on_device(plan.images.points),
        images=on_device(plan.images.points @ lattice),
        indices=on_device(indices),
        waves=on_device(np.ascontiguousarray((indices @ dual).T)),
        first=first,
        second=second,
        slots=slots_of_pairs(n_atoms, device),
    )


class _PairSums(torch.autograd.Function):
    """Forward and first derivative by hand; further derivatives through ``primitive_pair_sums``."""

    @staticmethod
    def forward(ctx, positions, cell, structures, crystal):  # type: ignore[no-untyped-def]
        wrapped, turns = _wrap(positions, crystal)
        difference = wrapped.index_select(0, crystal.first) - wrapped.index_select(0, crystal.second)
        pair_turns = torch.round(difference @ crystal.dual.T)
        vectors = torch.addmm(difference, pair_turns, crystal.lattice, alpha=-1)  # (P, 3)
        real, slopes = _real_space(vectors, crystal, any(ctx.needs_input_grad))
        sums = real.index_select(0, crystal.slots).view_as(crystal.constant) + crystal.constant
        kept = [wrapped, turns, pair_turns, vectors, *slopes]
        if crystal.plan.split:
            phases = wrapped @ crystal.waves
            basis = torch.cat((torch.cos(phases), torch.sin(phases)), dim=1)  # (N, 2 W)
            long = (basis * crystal.weights[:, None]) @ basis.T  # (n_split, N, N)
            for place, k in enumerate(crystal.plan.split):
                sums[..., k] += long[place]
            kept.append(basis)
        ctx.structures, ctx.crystal = structures, crystal
        ctx.save_for_backward(positions, cell, *kept)
        return sums

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        positions, cell, wrapped, turns, pair_turns, vectors, *kept = ctx.saved_tensors
        crystal: _Crystal = ctx.crystal
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *_differentiable_slopes(positions, cell, ctx.structures, crystal, grad, wanted), None, None
        n_primitives = grad.shape[2]
        slopes, basis = kept[:n_primitives], kept[n_primitives:]
        # real space: weight of v + n for every pair and image
        of_pairs = grad.new_zeros(len(vectors), n_primitives)
        of_pairs.index_add_(0, crystal.slots, grad.reshape(-1, n_primitives))
        weight = slopes[0] * of_pairs[:, :1]
        for k in range(1, n_primitives):
            weight.addcmul_(slopes[k], of_pairs[:, k : k + 1])
        of_vectors = torch.addmm(weight.sum(1, keepdim=True) * vectors, weight, crystal.images)
        of_atoms = torch.zeros_like(wrapped).index_add_(0, crystal.first, of_vectors)
        of_atoms.index_add_(0, crystal.second, of_vectors, alpha=-1)
        of_lattice = torch.zeros_like(crystal.lattice)
        if wanted[1]:
            of_images = torch.addmm(weight.sum(0)[:, None] * crystal.images, weight.T, vectors)
            of_lattice += crystal.points.T @ of_images - pair_turns.T @ of_vectors
        if basis:
            of_waves = _add_slopes_of_waves(grad, wrapped, basis[0], crystal, of_atoms, of_lattice)
            if wanted[1]:
                # waves = 2 pi dual^T m, dual = lattice^-T
                of_dual = crystal.indices.T @ of_waves.T
                of_lattice -= crystal.dual @ of_dual.T @ crystal.dual
        of_cell = crystal.to_lattice.T @ of_lattice.sub_(turns.T @ of_atoms) if wanted[1] else None
        return of_atoms * crystal.scale if wanted[0] else None, of_cell, None, None


def _wrap(positions: Tensor, crystal: _Crystal) -> tuple[Tensor, Tensor]:
    """Positions in the cell, reduced units, and the lattice vectors taken off. (N, 3) each"""
    scaled = positions * crystal.scale
    turns = torch.floor(scaled @ crystal.dual.T)
    return torch.addmm(scaled, turns, crystal.lattice, alpha=-1), turns


def _real_space(vectors: Tensor, crystal: _Crystal, with_slopes: bool) -> tuple[Tensor, list[Tensor]]:
    """Sums over all images of every pair (P, n_primitives), and per primitive 2 d phi/d r^2 of each image (P, M)."""
    shifted = vectors.T[:, :, None] + crystal.images.T[:, None]  # (3, P, M)
    squares = shifted.mul_(shifted)
    x = squares[0].add_(squares[1]).add_(squares[2])  # ten times faster than a sum over so few
    x[0, 0] = 1.0  # the atom itself, left out below
    if float(x.min()) < 1e-20:
        raise ValueError("positions must differ, got two atoms of a structure at the same place")
    radial, sums, slopes = Radial(x), [], []
    for k, primitive in enumerate(crystal.decomposition.primitives):
        evaluate = primitive.complete if crystal.plan.complete[k] else primitive.short_range
        orders = evaluate(radial, crystal.alphas[k], 2 if with_slopes else 1)
        for order in orders:
            order[0, 0] = 0.0
        sums.append(orders[0].sum(1) * crystal.prefactors[k])
        slopes += [order * (-2 * crystal.prefactors[k]) for order in orders[1:]]
    return torch.stack(sums, dim=1), slopes


def _add_slopes_of_waves(
    grad: Tensor, wrapped: Tensor, basis: Tensor, crystal: _Crystal, of_atoms: Tensor, of_lattice: Tensor
) -> Tensor:
    """Adds the slopes by the atoms, and by the lattice through its volume; returns those by the waves. (3, W)"""
    split, n_waves = crystal.plan.split, crystal.waves.shape[1]
    some = grad[..., split].permute(2, 0, 1)
    products = (some + some.transpose(1, 2)) @ basis  # (n_split, N, 2 W)
    of_basis = (products * crystal.weights[:, None]).sum(0)
    cosine, sine = basis.split(n_waves, dim=1)
    phase = of_basis[:, n_waves:] * cosine - of_basis[:, :n_waves] * sine
    of_atoms.addmm_(phase, crystal.waves.T)
    of_weights = 0.5 * (products * basis).sum(1)  # (n_split, 2 W)
    of_volume = (of_weights * crystal.weights).sum() + (grad.sum((0, 1)) * crystal.zero_modes).sum()
    of_lattice.sub_(of_volume * crystal.dual)  # d V = V <dual, d lattice>
    of_k2 = ((of_weights[:, :n_waves] + of_weights[:, n_waves:]) * crystal.weight_slopes).sum(0)
    return torch.addmm(2 * of_k2 * crystal.waves, wrapped.T, phase)


def _differentiable_slopes(
    positions: Tensor, cell: Tensor, structures: Structures, crystal: _Crystal, grad: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The slopes as differentiable functions of positions, cell and incoming gradient."""
    inputs = (positions.view_as(positions), cell.view_as(cell))
    same = replace(structures, positions=inputs[0], cell=inputs[1][None])
    bucket = gather_bucket(same, crystal.plan, np.zeros(1, dtype=np.int64))
    sums = primitive_pair_sums(bucket, crystal.decomposition)[0].permute(1, 2, 0)
    chosen = [x for x, is_wanted in zip(inputs, wanted, strict=True) if is_wanted]
    slopes = iter(torch.autograd.grad(sums, chosen, grad, create_graph=True))
    return tuple(next(slopes) if is_wanted else None for is_wanted in wanted)
