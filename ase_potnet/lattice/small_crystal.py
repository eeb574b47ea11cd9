"""Pair sums of one small crystal in few operations: for a single structure these, not arithmetic, take the time.

Whatever depends on the cell alone (lattice points, wave vectors, weights) is made once for a plan, which is kept as
long as the cell stays the same. All images of all pairs are summed, also those that lie beyond the cut-off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import gather_bucket, self_terms, zero_modes
from ase_potnet.lattice.caching import cache_tensors, cached_tensor
from ase_potnet.lattice.plan import Plan, constants_of
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.primitive_sums import primitive_pair_sums, self_and_distinct_pairs
from ase_potnet.lattice.special import Radial, exponential_integrals, next_integral
from ase_potnet.lattice.structures import Structures

_LARGEST = 1 << 15  # images of pairs up to which nothing is sorted out


def is_small_crystal(structures: Structures, plans: tuple[Plan, ...]) -> bool:
    """Whether the batch is one crystal whose pairs have few images."""
    if structures.n_structures != 1 or plans[0].d != 3:
        return False
    n, n_images = int(structures.n_atoms[0]), len(plans[0].images.points)
    return (n * (n - 1) // 2 + 1) * n_images <= _LARGEST


def small_crystal_sums(structures: Structures, plan: Plan, decomposition: Decomposition) -> Tensor:
    """Sums of the primitives, physical units, differentiable to every order. (n_primitives, N, N)

    Raises ValueError where two atoms coincide.
    """
    like = structures.positions
    crystal = _crystal(plan, decomposition, len(like), like.dtype, like.device)
    sums: Tensor = _PairSums.apply(structures.positions, structures.cell[0], structures, crystal)
    return sums


@dataclass(frozen=True)
class _Crystal:
    """What does not depend on the positions; reduced units.

    scale; lattice, dual: (3, 3); fractions: (3, 3) fractional coordinates = positions (in Å) · fractions
    images: (M, 3), as columns (3, 1, M); waves: (3, W)
    first, second: (P,) atoms of the pairs, that of an atom with itself first; slots (N N,) pair of each i, j
    prefactors: (n_primitives, 1) from reduced to physical units; of_waves (n_split, 1) those of the weights
    zero_modes: (n_primitives,) k = 0 terms; constant: (n_primitives, P) the same, less the long range at r = 0 for
        an atom with itself; physical units
    split: (n_split,) primitives with a long range
    """

    plan: Plan
    decomposition: Decomposition
    scale: float
    lattice: Tensor
    dual: Tensor
    fractions: Tensor
    images: Tensor
    columns: Tensor
    waves: Tensor
    first: Tensor
    second: Tensor
    slots: Tensor
    prefactors: Tensor
    of_waves: Tensor
    zero_modes: Tensor
    constant: Tensor
    split: Tensor

    @cached_tensor
    def to_lattice(self) -> Tensor:
        """Reduced lattice = to_lattice · cell. (3, 3)"""
        return torch.from_numpy(self.plan.transform[0] * self.scale).to(self.lattice)

    @cached_tensor
    def points(self) -> Tensor:
        """The images in multiples of the lattice vectors. (M, 3)"""
        return torch.from_numpy(self.plan.images.points).to(self.lattice)

    @cached_tensor
    def indices(self) -> Tensor:
        """The waves in multiples of the dual vectors. (W, 3)"""
        return torch.from_numpy(2 * math.pi * self.plan.waves.points).to(self.lattice)

    @cached_property
    def alphas(self) -> list[float]:
        return [primitive.alpha / self.scale for primitive in self.decomposition.primitives]

    @cached_tensor
    def weights(self) -> Tensor:
        """2 H(k)/V of the split primitives for cosines and sines, physical units. (n_split, 1, 2 W)"""
        weights = torch.stack([value for _, _, value in self._transforms]) * self.of_waves
        return torch.cat((weights, weights), dim=1)[:, None]

    @cached_tensor
    def weight_slopes(self) -> Tensor:
        """Derivatives of the weights by k^2. (n_split, W)"""
        slopes = [next_integral(q, value, radial) for q, radial, value in self._transforms]
        return torch.stack(slopes) * (-0.25 * self.of_waves)

    @cached_tensor
    def _transforms(self) -> list[tuple[float, Radial, Tensor]]:
        """q, argument and value of E_q((k^2 + alpha^2)/4), H(k) but for pi^(3/2), of the split primitives."""
        quarter = 0.25 * (self.waves * self.waves).sum(0)
        power_law, transforms = Radial(quarter), []
        for k in self.plan.split:
            alpha, q = self.alphas[k], 1.5 - self.decomposition.primitives[k].p
            radial = power_law if alpha == 0 else Radial(quarter + 0.25 * alpha * alpha)
            transforms.append((q, radial, exponential_integrals(q, radial)[0]))
        return transforms


@cache_tensors(maxsize=8)
def _crystal(
    plan: Plan, decomposition: Decomposition, n_atoms: int, dtype: torch.dtype, device: torch.device
) -> _Crystal:
    # the plan is made for the cell as it is
    scale, volume, lattice, dual = plan.scale, float(plan.volume[0]), plan.basis[0], plan.dual[0]
    images = plan.images.points @ lattice
    first, second, slots = self_and_distinct_pairs(n_atoms, device)
    constants = constants_of(decomposition)
    prefactors = constants.norm * scale ** (2 * constants.p)  # (n_primitives, 1)
    zero = zero_modes(plan, decomposition, scale).T * (prefactors / volume)
    constant = np.repeat(zero, len(first), axis=1)
    constant[:, :1] -= self_terms(plan, decomposition, scale).T * prefactors

    def on_device(values: NDArray[np.float64]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor if device.type == "cpu" and dtype == tensor.dtype else tensor.to(device=device, dtype=dtype)

    return _Crystal(
        plan=plan,
        decomposition=decomposition,
        scale=float(scale[0]),
        lattice=on_device(lattice),
        dual=on_device(dual),
        fractions=on_device(dual.T * scale),
        images=on_device(images),
        columns=on_device(images.T.copy()[:, None]),
        waves=on_device(2 * math.pi * dual.T @ plan.waves.points.T),
        first=first,
        second=second,
        slots=slots,
        prefactors=on_device(prefactors),
        of_waves=on_device(prefactors[plan.split] * (2 * math.pi**1.5 / volume)),
        zero_modes=on_device(zero[:, 0]),
        constant=on_device(constant),
        split=torch.tensor(plan.split, dtype=torch.int64, device=device),
    )


class _PairSums(torch.autograd.Function):
    """Forward and first derivative by hand; further derivatives through ``primitive_pair_sums``."""

    @staticmethod
    def forward(ctx, positions, cell, structures, crystal):  # type: ignore[no-untyped-def]
        wrapped, turns = _wrap(positions, crystal)
        difference = wrapped.index_select(0, crystal.first) - wrapped.index_select(0, crystal.second)
        pair_turns = (difference @ crystal.dual.T).round_()
        vectors = torch.addmm(difference, pair_turns, crystal.lattice, alpha=-1)  # (P, 3)
        values, slopes = _real_space(vectors, crystal, any(ctx.needs_input_grad))
        pairs = torch.addcmul(crystal.constant, values.sum(2), crystal.prefactors)  # (n_primitives, P)
        kept = [wrapped, turns, pair_turns, vectors, slopes]
        sums = pairs.index_select(1, crystal.slots).view(len(pairs), len(positions), -1)
        if crystal.plan.split:
            phases = wrapped @ crystal.waves
            basis = torch.cat((torch.cos(phases), torch.sin(phases)), dim=1)  # (N, 2 W)
            long = (basis * crystal.weights).flatten(0, 1) @ basis.T
            sums.index_add_(0, crystal.split, long.view(-1, *sums.shape[1:]))
            kept.append(basis)
        ctx.structures, ctx.crystal = structures, crystal
        ctx.save_for_backward(positions, cell, *kept)
        return sums

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        positions, cell, wrapped, turns, pair_turns, vectors, slopes, *basis = ctx.saved_tensors
        crystal: _Crystal = ctx.crystal
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *_differentiable_slopes(positions, cell, ctx.structures, crystal, grad, wanted), None, None
        # real space: weight of v + n for every pair and image
        of_pairs = grad.new_zeros(len(grad), len(vectors)).index_add_(1, crystal.slots, grad.flatten(1))
        of_pairs *= -2 * crystal.prefactors
        weight = (slopes * of_pairs[:, :, None]).sum(0)
        of_vectors = torch.addmm(weight.sum(1, keepdim=True) * vectors, weight, crystal.images)
        of_atoms = torch.zeros_like(wrapped).index_add_(0, crystal.first, of_vectors)
        of_atoms.index_add_(0, crystal.second, -of_vectors)  # alpha = -1 takes far longer
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
    """Positions in the cell around the origin, reduced units, and the lattice vectors taken off. (N, 3) each"""
    turns = (positions @ crystal.fractions).round_()
    return torch.addmm(positions, turns, crystal.lattice, beta=crystal.scale, alpha=-1), turns


def _real_space(vectors: Tensor, crystal: _Crystal, with_slopes: bool) -> tuple[Tensor, Tensor]:
    """Primitives at every image of every pair, reduced units, and if wanted -d/d r^2 of them. (n_primitives, P, M)"""
    shifted = vectors.T.unsqueeze(2) + crystal.columns  # (3, P, M)
    x = shifted.mul_(shifted).sum(0)
    x.select(0, 0).select(0, 0).fill_(1.0)  # the atom itself, left out below; x[0, 0] = 1.0 takes twice as long
    if float(x.min()) < 1e-20:
        raise ValueError("positions must differ, got two atoms of a structure at the same place")
    radial, values, slopes = Radial(x), [], []
    for k, primitive in enumerate(crystal.decomposition.primitives):
        evaluate = primitive.complete if crystal.plan.complete[k] else primitive.short_range
        orders = evaluate(radial, crystal.alphas[k], 2 if with_slopes else 1)
        values.append(orders[0])
        slopes += orders[1:]
    of_images = torch.stack(values)
    of_images.select(2, 0).select(1, 0).zero_()  # slopes there are multiplied by the distance 0
    return of_images, torch.stack(slopes) if with_slopes else x


def _add_slopes_of_waves(
    grad: Tensor, wrapped: Tensor, basis: Tensor, crystal: _Crystal, of_atoms: Tensor, of_lattice: Tensor
) -> Tensor:
    """Adds the slopes by the atoms, and by the lattice through its volume; returns those by the waves. (3, W)"""
    n_waves = crystal.waves.shape[1]
    some = grad.index_select(0, crystal.split)
    products = (some + some.transpose(1, 2)) @ basis  # (n_split, N, 2 W)
    of_basis = (products * crystal.weights).sum(0)
    cosine, sine = basis[:, :n_waves], basis[:, n_waves:]  # there may be no waves
    phase = of_basis[:, n_waves:] * cosine - of_basis[:, :n_waves] * sine
    of_atoms.addmm_(phase, crystal.waves.T)
    of_weights = 0.5 * (products * basis).sum(1)  # (n_split, 2 W)
    of_volume = (of_weights * crystal.weights[:, 0]).sum() + grad.sum((1, 2)) @ crystal.zero_modes
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
    sums = primitive_pair_sums(bucket, crystal.decomposition)[0]
    chosen = [x for x, is_wanted in zip(inputs, wanted, strict=True) if is_wanted]
    slopes = iter(torch.autograd.grad(sums, chosen, grad, create_graph=True))
    return tuple(next(slopes) if is_wanted else None for is_wanted in wanted)
